"""What breaks ends in one clear line, an exit code that is not 0, no hang and no lost checkpoint; what restarts ends equal.

All under torchrun's own agent (dmoe/testing/elastic.py). More, at random instants: `python tools/bench/soak.py`.
"""

import hashlib
import itertools
import json
import shutil
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.checkpoint import inspect as look
from dmoe.checkpoint import of_run
from dmoe.checkpoint.index import verify_checkpoint
from dmoe.testing.elastic import launch, used_rows
from dmoe.testing.small_data import make_data_set

CONFIG = """
model:
  embedding: {dim: 8}
  experts: [crossnet, {kind: mlp, hidden: [16]}]
  expert_dim: 8
  tower: {hidden: [8]}
train:
  {batch_size: 64, validations_per_epoch: 3, log_every: 10, checkpoint: {every_steps: 5}}
"""
STEPS, ROWS = 47, 3000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a config and data; `place(name, ...)` launches a run in a folder of its own."""
    root = tmp_path_factory.mktemp("faults")
    (root / "data").mkdir()
    make_data_set(root / "data", numbered=True)
    (root / "config.yaml").write_text(CONFIG)

    def start(name, faults=(), restarts=0, ranks=2, number=0, overrides=(), data=None):
        folder = root / name
        folder.mkdir(exist_ok=True)
        given = [f"data.path={data or root / 'data'}", f"run.dir={folder}/run", *overrides]
        arguments = ["--config", f"{root}/config.yaml", "--resume", *(part for value in given for part in ("--set", value))]
        return launch(folder, ranks, arguments, list(faults), restarts, number)

    start.root = root
    return start


@pytest.fixture(scope="module")
def undisturbed(place):
    assert place("undisturbed").succeeded
    return place.root / "undisturbed"


def figures(folder):
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "samples_per_second" not in key} for line in lines]


def test_killed_in_a_step_a_write_and_an_evaluation_the_run_ends_as_if_nothing_had_been(place, undisturbed):
    faults = [
        {"attempt": 0, "at": "step", "number": 8, "rank": 1, "do": "kill"},
        {"attempt": 1, "at": "half", "number": 2, "rank": 0, "do": "kill"},
        {"attempt": 2, "at": "evaluate", "number": 1, "rank": 1, "do": "term"},
        {"attempt": 3, "at": "evaluate", "number": 1, "do": "kill"},
    ]
    outcome = place("killed", faults, restarts=4)
    assert outcome.succeeded, outcome.said
    lines, differ = look.diff(of_run.newest(f"{undisturbed}/run"), of_run.newest(f"{place.root}/killed/run"), 0.0)
    assert not differ, lines
    assert figures(place.root / "killed") == figures(undisturbed)
    used = used_rows(place.root / "killed")
    assert sorted(used) == list(range(1, STEPS + 1))
    assert sorted(row for rows in used.values() for row in rows) == list(range(ROWS))
    assert "Traceback" not in outcome.said


@pytest.mark.slow
def test_a_shard_that_is_damaged_within_an_epoch_is_named(place):
    """Bytes that change after the file was opened: the shard's SHA-256 sees them, where decoding might not."""
    data = place.root / "damaged-data"
    shutil.copytree(place.root / "data", data)
    path = data / "train" / "part-00001.parquet"
    fault = {"at": "step", "number": 12, "rank": 1, "do": "damage", "path": str(path), "offset": path.stat().st_size // 4, "bytes": 9}
    outcome = place("damaged", [fault], data=data, overrides=["data.shuffle=none"])
    assert set(outcome.codes.values()) == {2}
    assert outcome.said.count("dmoe.train: ") == 1
    assert "train/part-00001.parquet: its bytes are not those that were written" in outcome.said
    assert "Traceback" not in outcome.said
    verify_checkpoint(of_run.newest(f"{place.root}/damaged/run"))


def test_a_shard_that_vanishes_within_an_epoch_is_named(place):
    """Of many: the reader keeps 64 open, and what is open can be read to its end whatever happens to its name."""
    data = place.root / "vanishing-data"
    shutil.copytree(place.root / "data", data)
    cut_train(data, 70)
    fault = {"at": "step", "number": 12, "rank": 0, "do": "remove", "path": f"{data}/train/cut-00060.parquet"}
    outcome = place("vanishing", [fault], data=data, overrides=["data.shuffle=none", "train.checkpoint.asynchronous=false"])
    assert set(outcome.codes.values()) == {2}
    (line,) = [line for line in outcome.said.splitlines() if line.startswith("dmoe.train: ")]
    assert "train/cut-00060.parquet: missing, but the manifest names it; copy it back or make the data set again" in line
    assert "Traceback" not in outcome.said
    newest = of_run.newest(f"{place.root}/vanishing/run")
    assert verify_checkpoint(newest).progress["step"] >= 10


def cut_train(data, shards):
    """Cuts the training split into so many files."""
    manifest = json.loads((data / "manifest.json").read_text())
    split = manifest["splits"]["train"]
    whole = pa.concat_tables([pq.read_table(data / shard["path"]) for shard in split["shards"]])
    firsts = [number * len(whole) // shards for number in range(shards + 1)]
    split["shards"] = []
    for number, (first, end) in enumerate(itertools.pairwise(firsts)):
        path, part = data / "train" / f"cut-{number:05d}.parquet", whole[first:end]
        pq.write_table(part, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        positives = int(part["label"].to_numpy().sum())
        split["shards"].append({"path": f"train/{path.name}", "rows": len(part), "positives": positives, "sha256": digest})
    (data / "manifest.json").write_text(json.dumps(manifest))


def test_one_rank_that_is_asked_to_stop_exits_143_and_goes_on_later(place, undisturbed):
    """The other ranks that a preemption is agreed on with are none here; tests/endtoend has two under torchrun."""
    outcome = place("preempted", [{"at": "step", "number": 13, "do": "term"}], ranks=1)
    assert outcome.codes == {0: 143}
    assert "asked to stop (SIGTERM): kept a checkpoint of step 13" in outcome.said
    assert "Traceback" not in outcome.said
    verify_checkpoint(f"{place.root}/preempted/run/checkpoints/step-000000013")
    again = place("preempted", ranks=1, number=1)
    assert again.succeeded, again.said
    assert "resuming from step 13" in again.said
    lines, differ = look.diff(of_run.newest(f"{undisturbed}/run"), of_run.newest(f"{place.root}/preempted/run"), 2e-4)
    assert not differ, lines
    assert sorted(row for rows in used_rows(place.root / "preempted").values() for row in rows) == list(range(ROWS))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a disk that is really full, since mounting a tmpfs needs root here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_and_the_last_checkpoint_stays(place, small_disk):
    """ENOSPC itself; the test below has a file's largest size in its place, which needs no root."""
    fault = {"at": "step", "number": 12, "rank": 0, "do": "fill", "path": str(small_disk / "ballast")}
    overrides = [f"run.dir={small_disk}/run", "train.checkpoint.asynchronous=false"]
    outcome = place("small-disk", [fault], overrides=overrides)
    assert set(outcome.codes.values()) == {2}
    (line,) = [line for line in outcome.said.splitlines() if line.startswith("dmoe.train: ")]
    assert "no space left on device" in line.lower()
    assert "cannot write the checkpoint" in line
    assert "Traceback" not in outcome.said
    assert "step-000000010" in look.verify(of_run.newest(f"{small_disk}/run"))
    (small_disk / "ballast").unlink()
    again = place("small-disk", number=1, overrides=overrides)
    assert again.succeeded, again.said
    assert "resuming from step 10" in again.said


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(place):
    # Three files a checkpoint: from the first file of the third one on, which is that of step 15.
    outcome = place("full", [{"at": "write", "number": 7, "rank": 0, "do": "limit", "bytes": 40_000}])
    assert set(outcome.codes.values()) == {2}
    (line,) = [line for line in outcome.said.splitlines() if line.startswith("dmoe.train: ")]
    assert "cannot write the checkpoint" in line
    assert "then --resume" in line
    assert "step-000000010" in look.verify(of_run.newest(f"{place.root}/full/run"))
    again = place("full", number=1)
    assert again.succeeded
    assert "resuming from step 10" in again.said


@pytest.mark.slow
def test_a_run_directory_that_cannot_be_written_is_told_before_training(place):
    (place.root / "a-file").write_text("")
    outcome = place("unwritable", overrides=[f"run.dir={place.root}/a-file/run"])
    assert set(outcome.codes.values()) == {2}
    (line,) = [line for line in outcome.said.splitlines() if line.startswith("dmoe.train: ")]
    assert "a-file/run" in line


@pytest.mark.parametrize(
    ("do", "words"),
    [
        # For longer than a test may take (pyproject.toml): only the watch can have ended it.
        ({"at": "batch", "do": "sleep", "seconds": 3600}, "rank 1 waits for its next batch"),
        # The agent takes half a minute to kill a stopped process.
        pytest.param({"at": "step", "do": "stop"}, "rank 1 gives no sign of life", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_hangs_is_named(place, do, words):
    name = do["do"]
    outcome = place(name, [{**do, "number": 13, "rank": 1}], overrides=["run.timeout_seconds=10", "data.prefetch=0"])
    assert 3 in outcome.codes.values()
    assert "no progress for 10 s" in outcome.said
    assert words in outcome.said, outcome.said
    assert "the others wait: each is in a training step" in outcome.said
    verify_checkpoint(of_run.newest(f"{place.root}/{name}/run"))


def test_a_batch_with_nan_is_refused_by_file_and_row(place):
    data = place.root / "nan-data"
    shutil.copytree(place.root / "data", data)
    path = data / "train" / "part-00001.parquet"
    table = pq.read_table(path)
    values = table.column("I2").to_numpy().copy()
    values[700] = float("nan")
    pq.write_table(table.set_column(table.column_names.index("I2"), "I2", [values]), path, row_group_size=256)
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (data / "manifest.json").write_text(json.dumps(manifest))
    outcome = place("nan", data=data, overrides=["data.shuffle=none"])
    assert set(outcome.codes.values()) == {2}
    assert "I2: nan at row 700 of train/part-00001.parquet" in outcome.said
    assert "Traceback" not in outcome.said
    verify_checkpoint(of_run.newest(f"{place.root}/nan/run"))


@pytest.mark.slow
def test_a_loss_that_overflows_names_the_step_and_keeps_the_last_sound_checkpoint(place):
    """Not from the data: a learning rate that drives the dense part to infinity."""
    outcome = place("overflow", overrides=["optimizer.dense={kind: sgd, lr: 1.0e+30}", "train.checkpoint.every_steps=1"])
    assert set(outcome.codes.values()) == {2}
    assert "not finite" in outcome.said
    assert "Traceback" not in outcome.said
