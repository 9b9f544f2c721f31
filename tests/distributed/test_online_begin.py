"""How a run over windows begins: with a trained model and its ids; with hashed ids; and what it refuses."""

import json
from pathlib import Path

import numpy as np

from dmoe.checkpoint.contents import Contents
from dmoe.checkpoint.of_run import newest
from dmoe.testing.elastic import launch
from dmoe.testing.growing_log import write_config, write_window
from dmoe.testing.small_scorer import small_scorer


def follow(folder: Path, config: str, *more: str, number: int = 0):
    arguments = ["--config", config, "--source", str(folder / "logs"), "--run", str(folder / "run"), "--once", *more]
    return launch(folder, 1, arguments, number=number, command="online")


def ledger(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "ledger.jsonl").read_text().splitlines()]


def test_a_run_begins_with_a_trained_model_and_its_ids(tmp_path):
    small_scorer(str(tmp_path / "before"), steps=60)
    for number in (1, 2):
        write_window(tmp_path / "logs" / f"w{number}.csv", number)
    begin = [f"data.path={tmp_path / 'before' / 'data'}", f"train.init_from={tmp_path / 'before' / 'run'}", "online.schema_file="]
    config = write_config(tmp_path)
    refused = follow(tmp_path, config, "--set", *begin)
    assert (refused.codes, "capacity" in refused.said) == ({0: 2}, True)
    outcome = follow(tmp_path, config, "--set", *begin, "online.ids.capacity=60", number=1)
    assert outcome.succeeded, outcome.said
    lines = ledger(tmp_path)
    assert [line["state"] for line in lines] == ["trained"] * 2
    assert lines[0]["test"]["auc"] > 0.65
    assert lines[0]["data"]["unknown"]["site"] == 0
    # The weights before the first window are the run's, row for row; rows behind its ids are a fresh model's.
    old, new = Contents(newest(str(tmp_path / "before" / "run"))), Contents(str(tmp_path / "run" / "checkpoints" / "step-000000000"))
    for name in (one for one in old.names() if one.partition("/")[0] in ("site", "user", "tags", "price_bucket")):
        rows = old.shape(name)[0]
        np.testing.assert_array_equal(new.rows(name, 0, rows), old.rows(name, 0, rows), err_msg=name)
        assert new.shape(name)[0] == 60


def test_hashed_ids_need_no_vocabulary(tmp_path):
    for number in (1, 2, 3):
        write_window(tmp_path / "logs" / f"w{number}.csv", number)
    config = write_config(tmp_path, ids={"hash_size": "500"})
    outcome = follow(tmp_path, config, "--publish", str(tmp_path / "versions"))
    assert outcome.succeeded, outcome.said
    lines = ledger(tmp_path)
    assert [(line["state"], line["alarms"]) for line in lines] == [("trained", [])] * 3
    assert lines[-1]["test"]["auc"] > 0.65
    assert (tmp_path / "versions" / "current").read_text() == "versions/000003\n"
    refused = follow(tmp_path, config, "--set", "online.ids.hash_size=600", number=1)
    assert (refused.codes, str(tmp_path / "run") in refused.said) == ({0: 2}, True)
