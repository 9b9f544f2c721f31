"""What a window does that is not sound: planted faults are caught and undone, and a sound stream raises no alarm and takes no more room."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from dmoe.testing.elastic import Outcome, launch
from dmoe.testing.growing_log import write_config, write_window

SOUND = 8
FAULTS = ["flip", "broken", "bots", "schema", "clock"]
KINDS = {
    "flip": {"ne"},
    "broken": {"missing values of site"},
    "bots": {"most frequent value of user"},
    "schema": {"prepare"},
    "clock": {"clock"},
}
"""Alarms of each fault that have to be among those that are raised."""


def follow(folder: Path, config: str, logs: Path, *more: str, number: int = 0, once: bool = True) -> Outcome:
    folder.mkdir(exist_ok=True)
    arguments = ["--config", config, "--source", str(logs), "--run", str(folder / "run"), "--publish", str(folder / "versions")]
    return launch(folder, 1, [*arguments, *more, *["--once"] * once], number=number, command="online")


def ledger(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "ledger.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_planted_faults_are_named_and_undone_and_nothing_else_is(tmp_path):
    order = [""] * SOUND
    for fault in FAULTS:
        order += [fault, ""]
    for number, fault in enumerate(order, 1):
        write_window(tmp_path / "logs" / f"w{number}.csv", number, fault=fault)
    config = write_config(tmp_path)
    outcome = follow(tmp_path, config, tmp_path / "logs")
    assert outcome.succeeded, outcome.said
    lines = ledger(tmp_path)
    assert [line["state"] for line in lines] == ["quarantined" if fault else "trained" for fault in order]
    for line, fault in zip(lines, order, strict=True):
        kinds = {alarm.partition(":")[0] for alarm in line["alarms"]}
        assert kinds >= KINDS[fault] if fault else not kinds, (line["window"], line["alarms"])
    # The model is that of the window before, and no version is of a quarantined one.
    steps = [line.get("step") for line in lines]
    assert [step for step in steps if step is not None] == [7 * (count + 1) for count in range(SOUND + len(FAULTS))]
    published = sorted(int(path.name) for path in (tmp_path / "versions" / "versions").iterdir())
    assert published == [line["window"] for line in lines if line["state"] == "trained"][-len(published) :]
    # A person takes one back: it is learned, as a window of its own, once.
    flipped = order.index("flip") + 1
    for number in (1, 2):
        outcome = follow(tmp_path, config, tmp_path / "logs", "--accept", str(flipped), number=number)
        assert outcome.succeeded, outcome.said
        accepted = ledger(tmp_path)[len(order) :]
        assert [(line["state"], line["accepts"], line["files"]) for line in accepted] == [("trained", flipped, lines[flipped - 1]["files"])]
    outcome = follow(tmp_path, config, tmp_path / "logs", "--accept", "1", number=3)
    assert (outcome.codes, "--accept 1" in outcome.said) == ({0: 2}, True)


@pytest.mark.slow
def test_a_model_that_learning_made_worse_is_undone_and_the_run_stops_after_some(tmp_path):
    """Learning rates that tear the model apart, from window 6 on: the windows themselves are sound."""
    for number in range(1, 6):
        write_window(tmp_path / "logs" / f"w{number}.csv", number)
    config = write_config(tmp_path, watch={"most_in_a_row": 2})
    assert follow(tmp_path, config, tmp_path / "logs").succeeded
    for number in range(6, 10):
        write_window(tmp_path / "logs" / f"w{number}.csv", number)
    rates = ["optimizer.dense.lr=3.0", "optimizer.tables.lr=300.0"]
    outcome = follow(tmp_path, config, tmp_path / "logs", "--set", *rates, number=1)
    assert outcome.codes == {0: 2}
    lines = ledger(tmp_path)
    assert [line["state"] for line in lines] == ["trained"] * 5 + ["quarantined"] * 2
    for line in lines[5:]:
        assert {alarm.partition(":")[0] for alarm in line["alarms"]} & {"learned", "norm", "not finite"}
    # Started again with sound rates, it goes on with the next window and the sound model.
    kept = tmp_path / "run" / "checkpoints"
    before = sorted(path.name for path in kept.iterdir())
    outcome = follow(tmp_path, config, tmp_path / "logs", number=2)
    assert outcome.succeeded, outcome.said
    lines = ledger(tmp_path)
    assert [line["state"] for line in lines[7:]] == ["trained"] * 2
    assert lines[7]["test"]["auc"] > 0.65
    assert before[-1] == f"step-{lines[4]['step']:09d}"


@pytest.mark.slow
def test_stop_leaves_the_window_to_be_taken(tmp_path):
    for number in range(1, 8):
        write_window(tmp_path / "logs" / f"w{number}.csv", number, fault="flip" if number == 7 else "")
    config = write_config(tmp_path, watch={"action": "stop"})
    outcome = follow(tmp_path, config, tmp_path / "logs")
    assert (outcome.codes, len(ledger(tmp_path))) == ({0: 2}, 6)
    outcome = follow(tmp_path, config, tmp_path / "logs", "--set", "online.watch.action=tell", number=1)
    assert outcome.succeeded, outcome.said
    last = ledger(tmp_path)[-1]
    assert (last["window"], last["state"], bool(last["alarms"])) == (7, "trained", True)


@pytest.mark.slow
def test_a_sound_stream_of_100_windows_raises_no_alarm_and_takes_no_more_room(tmp_path):
    for number in range(1, 101):
        write_window(tmp_path / "logs" / f"w{number:03d}.csv", number, rows=300)
    config = write_config(tmp_path, versions={"full_every": 4, "keep_full": 2})
    outcome = follow(tmp_path, config, tmp_path / "logs", "--set", "train.checkpoint.keep=2")
    assert outcome.succeeded, outcome.said
    lines = ledger(tmp_path)
    assert {(line["state"], tuple(line["alarms"])) for line in lines} == {("trained", ())}
    assert len(lines) == 100
    memory = [line["memory_mb"] for line in lines]
    # By its median: a single figure may hold what is freed a moment later.
    assert statistics.median(memory[60:]) <= 1.1 * max(memory[:20])
    for folder, most in (("run/checkpoints", 2), ("run/vocabulary", 3), ("run/windows", 1), ("run/published", 1), ("versions/versions", 8)):
        assert len(list((tmp_path / folder).iterdir())) <= most, folder
