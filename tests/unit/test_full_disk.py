"""A disk without room, and a file that may not grow: one line that names the file, exit code 2, and nothing half-written stays."""

import errno
import gc
import io
import os
import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
import yaml

from dmoe.cli.main import main
from dmoe.data import npy
from dmoe.data.parquet import ShardFile
from dmoe.data.prepare.source.raw_bytes import spool
from dmoe.serve.score_dataset import write_scores
from dmoe.storage.paths import append_text, write_atomic, write_output, write_text
from dmoe.testing.small_data import make_data_set
from dmoe.testing.synthesize import synthesize

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 4096
SCHEMA = {"format": "csv", "label": "click", "dense": [{"name": "price", "transform": "log1p"}], "categorical": ["site"]}
SIZES = {f"feature_{number}": 1000 for number in range(40)}
COMMANDS = {
    "synthesize": "synthesize criteo --rows 2000 --output {out}/log.tsv",
    "synthesize, packed": "synthesize criteo --rows 2000 --output {out}/log.tsv.gz",
    "preprocess criteo": "preprocess criteo --input {given}/criteo.tsv --output {out}/criteo --min-count 1",
    "preprocess log": "preprocess log --schema {given}/schema.yaml --input {given}/log.csv --output {out}/log --min-count 1",
    "shuffle": "preprocess criteo --input {given}/criteo.tsv --output {out}/shuffled --min-count 1 --shuffle",
    "columns": "data export {given}/data --format columns-npy --output {out}/npy",
    "page of a data set": "describe {given}/data --html {out}/page.html",
    "plan": "plan make --config {given}/config.yaml --cardinalities {given}/sizes.yaml --cluster 1x2:cpu --output {out}/plan.json",
    "sweep": "plan sweep --config {given}/config.yaml --cardinalities {given}/sizes.yaml --clusters 1x1:cpu,1x2:cpu"
    " --batch-sizes 64,128,256,512,1024,2048 --output {out}/sweep.json",
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    for name in ("data", "warm"):
        (folder / name).mkdir()
    make_data_set(folder / "data")
    synthesize(str(folder / "criteo.tsv"), 3000, seed=1)
    draw = np.random.default_rng(0)
    rows = [f"{int(draw.random() < 0.3)},{draw.normal():.9f},s{draw.integers(900)}" for _ in range(3000)]
    (folder / "log.csv").write_text("\n".join(["click,price,site", *rows]) + "\n")
    (folder / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    (folder / "sizes.yaml").write_text(yaml.safe_dump(SIZES))
    (folder / "config.yaml").write_text(
        "model: {embedding: {dim: 4}, experts: [{kind: mlp, hidden: [4]}], expert_dim: 4, tower: {hidden: []}}\n"
    )
    # So that numba has nothing to compile, and to keep in its cache, where no file may grow.
    for command in COMMANDS.values():
        assert main(command.format(given=folder, out=folder / "warm").split()) == 0
    return folder


@pytest.fixture
def small_files():
    """No file may be larger than LIMIT: what a full disk is, but for the error's number, without a disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_which_file_has_no_room(given, tmp_path, small_files, capsys, command):
    code = main(COMMANDS[command].format(given=given, out=tmp_path).split())
    said = capsys.readouterr().err.splitlines()
    assert code == 2, said
    assert said[-1].startswith("dmoe ")
    assert f": file too large: {tmp_path}/" in said[-1]
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")], files(tmp_path)
    # Work in progress that is whole may stay, for the same command to go on from.
    assert all("/.work/" in f"/{name}" for name in files(tmp_path)), files(tmp_path)


@pytest.mark.parametrize("write", [write_atomic, write_output])
def test_what_was_there_before_is_there_still(tmp_path, small_files, write):
    path = tmp_path / "kept.json"
    path.write_text("before")
    with pytest.raises(OSError, match=f"{path}") as error, write(str(path)) as file:
        file.write(bytes(2 * LIMIT))
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    assert files(tmp_path) == ["kept.json"]
    assert path.read_text() == "before"
    with pytest.raises(OSError, match=f"{path}"):
        write_text(str(path), "x" * 2 * LIMIT)


def test_what_is_added_to_or_is_no_file_is_named_as_well():
    """/dev/full is always full."""
    for write in (lambda: append_text("/dev/full", "a line\n"), lambda: fill("/dev/full")):
        with pytest.raises(OSError, match="/dev/full") as error:
            write()
        assert error.value.errno == errno.ENOSPC


def fill(path):
    with write_output(path) as file:
        file.write(bytes(1 << 20))


def test_of_several_shards_the_one_without_room_is_named_and_none_stays(tmp_path, small_files):
    """As preprocessing writes them: a shard of every split at once, row group by row group."""
    small = pa.table({"label": np.zeros(10, np.uint8)})
    large = pa.table({"x": np.random.default_rng(0).normal(size=10_000)})

    def write():
        with ExitStack() as stack:
            for name, table in (("train", small), ("test", small), ("validation", large)):
                stack.enter_context(ShardFile(f"{tmp_path}/{name}.parquet", frozenset())).write(table, 10_000)

    with pytest.raises(OSError, match="validation") as error:
        write()
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, f"{tmp_path}/validation.parquet")
    assert not files(tmp_path)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv"])
def test_scores_without_room_are_named_and_none_stays(tmp_path, small_files, name):
    draw = np.random.default_rng(0)
    batches = ((draw.normal(size=5000).astype(np.float32), None) for _ in range(3))
    with pytest.raises(OSError, match="scores") as error:
        write_scores(f"{tmp_path}/{name}", batches)
    assert error.value.filename == f"{tmp_path}/{name}"
    assert not files(tmp_path)
    del error
    gc.collect()


def test_standard_input_without_room_is_named(tmp_path, small_files):
    with pytest.raises(OSError, match="stdin") as error:
        spool(str(tmp_path), io.BytesIO(bytes(2 * LIMIT)))
    assert error.value.filename == f"{tmp_path}/stdin"
    assert not files(tmp_path)


@pytest.mark.parametrize("layout", get_args(npy.Format))
def test_room_is_taken_before_anything_is_stored_through_a_map(given, tmp_path, monkeypatch, layout):
    """A store would end the process by SIGBUS."""
    data = tmp_path / "data"
    data.mkdir()
    make_data_set(data, {"train": 100, "validation": 20, "test": 20}, cardinalities=(5,) * 26, dense=13)
    taken, take = {}, os.posix_fallocate

    def one_too_many(descriptor, start, size):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        assert start == 0
        assert size == os.path.getsize(path)
        taken[path] = size
        if len(taken) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        take(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", one_too_many)
    with pytest.raises(OSError, match="No space left") as error:
        npy.export(str(data), f"{tmp_path}/npy", layout)
    assert error.value.filename == list(taken)[-1]
    assert not files(tmp_path / "npy")
    monkeypatch.setattr(os, "posix_fallocate", take)
    npy.export(str(data), f"{tmp_path}/npy", layout)
    written = list((tmp_path / "npy").rglob("*.npy"))
    assert written
    assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in written)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a disk that is really full, since mounting a tmpfs needs root here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_an_export_on_a_disk_that_is_really_full_ends_in_one_line(given, small_disk):
    command = [sys.executable, "-m", "dmoe", "data", "export", f"{given}/data", "--format", "columns-npy", "--output", f"{small_disk}/npy"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr.splitlines()[-1].startswith(f"dmoe data export: no space left on device: {small_disk}/npy/")
    assert not files(small_disk)
