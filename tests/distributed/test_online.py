"""A run over windows: killed at any point it ends as if it had not been, to the bit; and every row is tested once and learned once."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmoe.checkpoint.inspect import diff
from dmoe.checkpoint.of_run import newest
from dmoe.config.config import load_config
from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError
from dmoe.online.publish import Publisher, check_target
from dmoe.online.rollback import roll_back
from dmoe.online.status import status, status_document
from dmoe.online.vocabulary import look_up
from dmoe.serve.encoding.random_rows import draw
from dmoe.serve.export.delta import Unlike, make_delta
from dmoe.serve.export.materialise import materialise
from dmoe.serve.scorer import Scorer
from dmoe.serve.server.versions import Versions
from dmoe.storage.paths import PATHS
from dmoe.testing.elastic import Outcome, launch
from dmoe.testing.growing_log import write_config, write_window
from tests.s3_server import s3_server

WINDOWS = 5
KILLS = {
    1: "start 1, half 1, ids 1, evaluate 3, reset 1, ledger 1, write 2, version 2, pointer 1, batch 5, old 1, ledger 2",
    2: "start 1, half 1, ids 1, evaluate 1, reset 1, batch 3, ledger 1, write 1, old 1, version 1, pointer 1, evaluate 2, batch 9,"
    " ledger 1, write 2",
}
"""Points, and at which passing of one the process is killed, one a start."""
ON_ANY_RANK = ("start", "evaluate", "reset", "batch")


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> tuple[str, str]:
    """The config's path, and the log's folder."""
    folder = tmp_path_factory.mktemp("log")
    for number in range(1, WINDOWS + 1):
        write_window(folder / "logs" / f"w{number}.csv", number)
    return write_config(folder), str(folder / "logs")


def follow(folder: Path, log: tuple[str, str], ranks: int, faults: list[dict[str, Any]] | None = None, number: int = 0) -> Outcome:
    folder.mkdir(exist_ok=True)
    arguments = ["--config", log[0], "--source", log[1], "--run", str(folder / "run"), "--publish", str(folder / "versions"), "--once"]
    return launch(folder, ranks, arguments, faults, restarts=len(faults or []), number=number, command="online")


def ledger(folder: Path) -> list[dict[str, Any]]:
    """Without what a clock says."""
    lines = [json.loads(line) for line in (folder / "run" / "ledger.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "done", "memory_mb")} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(log, tmp_path_factory):
    """`undisturbed(2)` is the folder of a sound run on two ranks."""
    made: dict[int, Path] = {}

    def get(ranks: int) -> Path:
        if ranks not in made:
            made[ranks] = tmp_path_factory.mktemp(f"ranks-{ranks}")
            outcome = follow(made[ranks], log, ranks)
            assert outcome.succeeded, outcome.said
        return made[ranks]

    return get


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {str(path.relative_to(folder)): file_sha256(str(path)) for path in sorted(folder.rglob("*")) if path.is_file()}


def same(a: Path, b: Path, tolerance: float = 0.0) -> None:
    lines, differ = diff(newest(str(a / "run")), newest(str(b / "run")), tolerance)
    assert not differ, lines
    names = [sorted(path.name for path in (one / "run" / "vocabulary").iterdir()) for one in (a, b)]
    assert names[0] == names[1]
    for name in names[0]:
        found = [load_manifest(str(one / "run" / "vocabulary" / name)) for one in (a, b)]
        assert [one.identity for one in found[0].categorical] == [one.identity for one in found[1].categorical]
    if not tolerance:
        assert contents(a / "versions") == contents(b / "versions")


def full_export(run: Path, line: dict[str, Any], settings: list[str], output: Path) -> None:
    """Of the checkpoint of a window, by the ids of the window."""
    config = load_config(str(run / "config.yaml"), settings)
    checkpoint = str(run / "checkpoints" / f"step-{line['step']:09d}")
    Publisher(str(output), str(run), config).export(checkpoint, f"{line['window']:06d}", str(output), {})


@pytest.mark.parametrize("rows", ["fp32", "fp16", "int8"])
def test_a_full_version_and_its_deltas_are_the_full_export_to_the_bit(tmp_path, undisturbed, rows):
    run, lines = undisturbed(1) / "run", ledger(undisturbed(1))
    settings = [f"online.versions.rows={rows}", "online.versions.full_every=4"]
    if rows == "fp32":
        # The model does not read the bucket; its vocabulary is in the scorer.
        settings.append("data.dense=numeric")
    config = load_config(str(run / "config.yaml"), settings)
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("published*"))
    publisher = Publisher(str(tmp_path / "versions"), str(tmp_path / "run"), config)
    kinds, sizes = [], []
    for line in lines:
        made = publisher.publish(line["window"], str(run / "checkpoints" / f"step-{line['step']:09d}"), f"{line['window']:06d}")
        assert publisher.publish(line["window"], "made already", "") is None
        kinds, sizes = [*kinds, made["kind"]], [*sizes, made["bytes"] / made["full_bytes"]]
        full_export(run, line, settings, tmp_path / "full" / made["version"])
    assert kinds == ["full", "delta", "delta", "delta", "full"]
    assert max(sizes[1:4]) < 1
    for name in publisher.versions.names():
        output = tmp_path / "made" / name
        place = materialise(str(tmp_path / "versions" / "versions" / name), str(output))
        assert contents(Path(place)) == contents(tmp_path / "full" / name)
    assert publisher.versions.current() == "000005"
    (tmp_path / "versions" / "versions" / "000003" / "rows.safetensors").write_bytes(b"x")
    for name in ("000003", "000004"):
        with pytest.raises(UserError, match=r"000003/rows\.safetensors: missing or damaged"):
            materialise(str(tmp_path / "versions" / "versions" / name), str(tmp_path / "made" / f"{name}-again"))


@pytest.mark.slow
def test_a_delta_has_the_graph_of_its_own_weights_and_ids(tmp_path, undisturbed):
    pytest.importorskip("onnxruntime")
    run, lines = undisturbed(1) / "run", ledger(undisturbed(1))
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("published*"))
    config = load_config(str(run / "config.yaml"), ["online.versions.onnx=true"])
    publisher, tested = Publisher(str(tmp_path / "versions"), str(tmp_path / "run"), config), []
    for line in (lines[0], lines[-1]):
        checkpoint, name = str(run / "checkpoints" / f"step-{line['step']:09d}"), f"{line['window']:06d}"
        made = publisher.publish(line["window"], checkpoint, name, figures=line["test"])
        place = materialise(str(tmp_path / "versions" / "versions" / name), str(tmp_path / name))
        assert contents(Path(place)) == contents(tmp_path / "run" / "published" / name)
        served, reference = Scorer(place), Scorer(place, engine="torch")
        rows = draw(reference, 300, np.random.default_rng(0))
        np.testing.assert_allclose(served.logits(*rows), reference.logits(*rows), atol=1e-5)
        assert served.engine == "onnx"
        assert served.about.card
        tested.append((made["kind"], served.about.card.figures["auc"]))
    assert tested == [("full", lines[0]["test"]["auc"]), ("delta", lines[-1]["test"]["auc"])]


@pytest.mark.parametrize("target", ["s3://logs/versions", "memory://logs/versions"])
def test_versions_go_to_object_storage_and_old_ones_are_removed_there(tmp_path, undisturbed, monkeypatch, target):
    run = undisturbed(1) / "run"
    settings = ["online.versions.full_every=2", "online.versions.keep_full=1"]
    config, kinds = load_config(str(run / "config.yaml"), settings), []
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("published*"))
    with s3_server(monkeypatch):
        publisher = Publisher(target, str(tmp_path / "run"), config)
        for line in ledger(undisturbed(1))[:4]:
            checkpoint = str(run / "checkpoints" / f"step-{line['step']:09d}")
            kinds.append(publisher.publish(line["window"], checkpoint, f"{line['window']:06d}")["kind"])
            full_export(run, line, settings, tmp_path / "full" / f"{line['window']:06d}")
        assert kinds == ["full", "delta", "full", "delta"]
        # Those before the last full one are gone, with all that was in them.
        assert publisher.versions.names() == ["000003", "000004"]
        assert sorted(name for name in PATHS.ls(f"{target}/versions") if PATHS.ls(f"{target}/versions/{name}")) == ["000003", "000004"]
        place = materialise(f"{target}/versions/{publisher.versions.current()}", str(tmp_path / "made"))
        assert contents(Path(place)) == contents(tmp_path / "full" / "000004")


def test_a_server_follows_deltas(undisturbed, tmp_path):
    versions, lines, told = undisturbed(1) / "versions", ledger(undisturbed(1)), []
    pointer = tmp_path / "current"
    pointer.write_text(f"{versions}/versions/000001")
    following = Versions(str(pointer), lambda *event: told.append(event), f"--model {pointer}")
    names = sorted(path.name for path in (versions / "versions").iterdir())
    assert names == [f"{line['window']:06d}" for line in lines]
    places = []
    for name in names[1:]:
        pointer.write_text(f"{versions}/versions/{name}")
        following.look()
        full_export(undisturbed(1) / "run", lines[int(name) - 1], [], tmp_path / name)
        rows = [{"site": "s1", "user": f"u{4 * int(name) + 3}", "price": 2.5, "tags": "t1|t2"}, {"site": "s7"}]
        assert following.current.scorer.predict(rows).tolist() == Scorer(str(tmp_path / name)).predict(rows).tolist()
        places.append(following.current.scorer.folder)
    assert [event for event, *_ in told] == ["loaded"] * len(names)
    # What was made of deltas is removed once it does not answer any more.
    following.stop()
    assert not [place for place in places if place.startswith(tempfile.gettempdir() + "/dmoe-serve-") and Path(place).exists()]


def test_every_window_is_tested_and_learned_once_and_ids_come_and_go(undisturbed):
    lines = ledger(undisturbed(1))
    assert [line["window"] for line in lines] == list(range(1, WINDOWS + 1))
    assert [Path(line["files"][0]["name"]).name for line in lines] == [f"w{number}.csv" for number in range(1, WINDOWS + 1)]
    assert {(line["state"], line["rows"], line["test"]["rows"], line["steps"]) for line in lines} == {("trained", 400, 400, 7)}
    assert sum(line["data"]["ids"]["evicted"] for line in lines) > 5
    assert lines[-1]["test"]["auc"] > 0.7 > 0.55 > lines[0]["test"]["auc"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_every_point_a_run_ends_as_the_undisturbed_one(tmp_path, log, undisturbed, ranks):
    faults = [
        {"at": point, "number": int(number), "rank": attempt % ranks if point in ON_ANY_RANK else 0, "attempt": attempt, "do": "kill"}
        for attempt, (point, number) in enumerate(kill.split() for kill in KILLS[ranks].split(","))
    ]
    outcome = follow(tmp_path / "killed", log, ranks, faults)
    assert outcome.succeeded, outcome.said
    # Every kill was reached: each start but the last left its logs.
    assert len(list((tmp_path / "killed" / "logs-0").rglob("attempt_*"))) == len(faults) + 1
    assert ledger(tmp_path / "killed") == ledger(undisturbed(ranks))
    same(tmp_path / "killed", undisturbed(ranks))


@pytest.mark.slow
def test_killed_and_started_again_on_other_numbers_of_ranks(tmp_path, log, undisturbed):
    folder = tmp_path / "killed"
    folder.mkdir()
    for number, (ranks, point) in enumerate(((2, "ledger"), (1, "batch"), (2, "reset"))):
        arguments = ["--config", log[0], "--source", log[1], "--run", str(folder / "run"), "--publish", str(folder / "versions"), "--once"]
        fault = {"at": point, "number": 5 if point == "batch" else 2, "rank": 0, "do": "kill"}
        assert not launch(folder, ranks, arguments, [fault], number=number, command="online").succeeded
    outcome = follow(folder, log, 1, number=3)
    assert outcome.succeeded, outcome.said
    # Which rows, files and ids is the same to the bit; sums of floats are taken in another order.
    exact = ("window", "state", "files", "rows", "positives", "data", "step", "steps")
    found, expected = ([{key: line[key] for key in exact} for line in ledger(one)] for one in (folder, undisturbed(1)))
    assert found == expected
    same(folder, undisturbed(1), 2e-3)
    assert len(list((folder / "versions" / "versions").iterdir())) == WINDOWS


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_with_all_that_steadies_a_run_it_ends_as_the_undisturbed_one_after_kills(tmp_path, log, ranks):
    """Replay, decaying sums, moving average, teacher, rates by row frequency: each has something to keep or to make again."""
    config = write_config(tmp_path, replay=0.5, state_decay=0.9, ema=0.9, teacher=0.5, rate_power=-0.5)
    for name, kills in (("undisturbed", ()), ("killed", (("batch", 9), ("batch", 11), ("ledger", 1)))):
        faults = [{"at": point, "number": at, "rank": 0, "attempt": attempt, "do": "kill"} for attempt, (point, at) in enumerate(kills)]
        outcome = follow(tmp_path / name, (config, log[1]), ranks, faults)
        assert outcome.succeeded, outcome.said
    lines = ledger(tmp_path / "killed")
    assert lines == ledger(tmp_path / "undisturbed")
    assert [line.get("replayed", 0) for line in lines] == [0, *[192] * (WINDOWS - 1)]
    assert [line["step"] for line in lines] == [7, 17, 27, 37, 47]
    same(tmp_path / "killed", tmp_path / "undisturbed")


def test_back_to_an_earlier_window_by_hand_and_on_from_there(tmp_path, log, undisturbed):
    for name in ("run", "versions"):
        shutil.copytree(undisturbed(1) / name, tmp_path / name)
    run, lines = str(tmp_path / "run"), ledger(undisturbed(1))
    shutil.copytree(run, tmp_path / "pruned")
    shutil.rmtree(tmp_path / "pruned" / "checkpoints" / "step-000000000")
    with pytest.raises(UserError, match="--to 0"):
        roll_back(str(tmp_path / "pruned"), 0)
    assert "step 21" in roll_back(run, 3, str(tmp_path / "versions"))
    # The versions of the undone windows 4 and 5 are still there.
    roll_back(run, 6, str(tmp_path / "versions"))
    assert (tmp_path / "versions" / "current").read_text() == "versions/000003\n"
    found = status(run)
    assert (found["windows"][-1]["state"], found["windows"][-1]["undoes"]) == ("rolled back", [4, 5])
    assert newest(run).endswith(f"step-{lines[2]['step']:09d}")
    assert "rolled back" in status_document(found).text()
    assert "<svg" in status_document(found).html()
    write_window(Path(log[1]) / "w9.csv", 9)
    outcome = follow(tmp_path, log, 1)
    (Path(log[1]) / "w9.csv").unlink()
    assert outcome.succeeded, outcome.said
    last = status(run)["windows"][-1]
    assert (last["window"], last["step"], last["state"]) == (7, lines[2]["step"] + 7, "trained")
    assert sorted(path.name for path in (tmp_path / "versions" / "versions").iterdir()) == ["000001", "000002", "000003", "000007"]


def test_versions_of_undone_windows_go_and_those_of_another_run_stay(tmp_path, undisturbed):
    for name in ("run", "versions"):
        shutil.copytree(undisturbed(1) / name, tmp_path / name)
    run, versions, line = str(tmp_path / "run"), str(tmp_path / "versions"), ledger(undisturbed(1))[2]
    before = contents(tmp_path / "versions" / "versions" / "000003")
    roll_back(run, 3)
    publisher = Publisher(versions, run, load_config(f"{run}/config.yaml", []))
    assert publisher.publish(3, f"{run}/checkpoints/step-{line['step']:09d}", "000003", figures=line["test"]) is None
    assert (publisher.versions.current(), publisher.versions.names()) == ("000003", ["000001", "000002", "000003"])
    assert contents(tmp_path / "versions" / "versions" / "000003") == before
    check_target(versions, run)
    for number in (0, 4):
        full_export(undisturbed(1) / "run", ledger(undisturbed(1))[number], [], tmp_path / str(number))
    make_delta(str(tmp_path / "0"), str(tmp_path / "4"), "000001", str(tmp_path / "forward"))
    with pytest.raises(Unlike):
        # A delta cannot remove the ids that the later version has.
        make_delta(str(tmp_path / "4"), str(tmp_path / "0"), "000005", str(tmp_path / "back"))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"000003 is of another run"):
        check_target(versions, str(tmp_path / "other"))


def test_a_tokens_row_is_told(undisturbed):
    run, lines = undisturbed(1) / "run", ledger(undisturbed(1))
    found = look_up(str(run / "vocabulary" / "000005"), "user", ["u40", "nobody"])
    assert (found[0]["last"], found[1]) == (5, {"token": "nobody", "row": None, "seen": 0.0})
    assert 2 <= found[0]["row"] < 34
    assert found[0]["born"] in {line["window"] for line in lines}
