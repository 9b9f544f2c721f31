"""A run over windows: killed at any point it ends as if it had not been, to the bit; and every row is tested once and learned once."""

import json
from pathlib import Path
from typing import Any

import pytest

from dmoe.checkpoint.inspect import diff, newest
from dmoe.data.dataset.manifest import load_manifest
from dmoe.testing.elastic import Outcome, launch
from dmoe.testing.growing_log import write_config, write_window

WINDOWS = 5
KILLS = {
    1: ["start", "ids", "evaluate", "reset", "batch", "ledger", "write", "half", "old"],
    2: ["ids", "reset", "ledger", "half"],
}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> tuple[str, str]:
    """The config's path, and the log's folder."""
    folder = tmp_path_factory.mktemp("log")
    for number in range(1, WINDOWS + 1):
        write_window(folder / "logs" / f"w{number}.csv", number)
    return write_config(folder), str(folder / "logs")


def follow(folder: Path, log: tuple[str, str], ranks: int, faults: list[dict[str, Any]] | None = None, number: int = 0) -> Outcome:
    folder.mkdir(exist_ok=True)
    arguments = ["--config", log[0], "--source", log[1], "--run", str(folder / "run"), "--once"]
    return launch(folder, ranks, arguments, faults, restarts=len(faults or []), number=number, command="online")


def ledger(folder: Path) -> list[dict[str, Any]]:
    """Without what a clock says."""
    lines = [json.loads(line) for line in (folder / "run" / "ledger.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "done")} for line in lines]


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


def same(a: Path, b: Path, tolerance: float = 0.0) -> None:
    lines, differ = diff(newest(str(a / "run")), newest(str(b / "run")), tolerance)
    assert not differ, lines
    names = [sorted(path.name for path in (one / "run" / "vocabulary").iterdir()) for one in (a, b)]
    assert names[0] == names[1]
    for name in names[0]:
        found = [load_manifest(str(one / "run" / "vocabulary" / name)) for one in (a, b)]
        assert [one.identity for one in found[0].categorical] == [one.identity for one in found[1].categorical]


def test_every_window_is_tested_and_learned_once_and_ids_come_and_go(undisturbed):
    lines = ledger(undisturbed(1))
    assert [line["window"] for line in lines] == list(range(1, WINDOWS + 1))
    assert [Path(line["files"][0]["name"]).name for line in lines] == [f"w{number}.csv" for number in range(1, WINDOWS + 1)]
    assert {(line["state"], line["rows"], line["test"]["rows"], line["steps"]) for line in lines} == {("trained", 400, 400, 7)}
    assert sum(line["data"]["ids"]["evicted"] for line in lines) > 5
    assert lines[-1]["test"]["auc"] > 0.7 > 0.55 > lines[0]["test"]["auc"]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_every_point_a_run_ends_as_the_undisturbed_one(tmp_path, log, undisturbed, ranks):
    faults = [
        {"at": point, "number": 1 if point == "start" else 2 + attempt % 2, "rank": 0, "attempt": attempt, "do": "kill"}
        for attempt, point in enumerate(KILLS[ranks])
    ]
    outcome = follow(tmp_path / "killed", log, ranks, faults)
    assert outcome.succeeded, outcome.said
    assert ledger(tmp_path / "killed") == ledger(undisturbed(ranks))
    same(tmp_path / "killed", undisturbed(ranks))
