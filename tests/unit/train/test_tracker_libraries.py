"""MLflow and W&B themselves, with local stores: what they hold afterwards, as their own readers tell."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmoe.errors import UserError
from dmoe.serve.export.register import check_register, register
from dmoe.serve.scorer import Scorer
from dmoe.testing.small_scorer import small_scorer
from dmoe.train.trackers import background, trackers
from dmoe.train.trackers.tracker import About
from dmoe.train.trackers.trackers import KINDS, Trackers, ids_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """A library that a busy machine makes slow is not taken for one that hangs."""
    monkeypatch.setattr(background, "STUCK_SECONDS", 500.0)
    monkeypatch.setitem(trackers.END_SECONDS, "finished", 500.0)


def record(run: Path, name: str, goes_on: bool, first: int, **parameters: Any) -> None:
    """Two steps of a run, and a file."""
    run.mkdir(exist_ok=True)
    (run / "plan.json").write_text("{}")
    told = Trackers(About(str(run), "D-MoE", parameters), goes_on, {name: KINDS[name]()}, pytest.fail)
    for step in (first, first + 1):
        told.scalars("train", {"loss": 1 / (1 + step)}, step)
    told.matrix("validation/cec_matrix", [[1.0, 0.5], [0.5, 1.0]], first + 1)
    told.files([str(run / "plan.json")])
    assert told.end("finished")


def test_mlflow_has_a_run_with_its_resumed_part_and_scores_raw_rows(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow", reason="dmoe[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/store")
    import mlflow
    import pandas

    scorer = small_scorer(str(tmp_path), settings=["run.trackers=[mlflow]"])
    with pytest.raises(UserError, match=r"--register clicks: .*run\.trackers"):
        check_register(str(tmp_path / "run"), "clicks")
    record(tmp_path / "run", "mlflow", False, 3, **{"train.batch_size": 64, 'sharding.tables."C1*"': [1], "a": "x" * 7000})
    record(tmp_path / "run", "mlflow", True, 4, **{"train.batch_size": 128})
    assert capsys.readouterr().out == ""

    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("dmoe").experiment_id])
    assert ids_of(str(tmp_path / "run")) == {"mlflow": run.info.run_id}
    assert (run.info.status, run.info.run_name) == ("FINISHED", "D-MoE")
    assert run.data.params["train.batch_size"] == "64"
    points = {(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "train/loss")}
    assert points == {(3, 1 / 4), (4, 1 / 5), (5, 1 / 6)}
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"plan.json", "correlations"}

    assert check_register(str(tmp_path / "run"), "clicks") == ["mlflow"]
    for version in (1, 2):
        assert register(str(tmp_path / "run"), scorer, "clicks", ["mlflow"]) == [f"models:/clicks/{version}"]
    with open(tmp_path / "log.csv", newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "click"} for row in list(csv.DictReader(file))[:40]]
    expected = Scorer(scorer).predict(rows)
    model = mlflow.pyfunc.load_model("models:/clicks/2")
    table = pandas.DataFrame(rows)
    np.testing.assert_allclose(model.predict(table), expected, rtol=1e-6)
    numbers = table.assign(price=pandas.to_numeric(table.price), extra=1)
    np.testing.assert_allclose(model.predict(numbers), expected, rtol=1e-6)
    without = Scorer(scorer).predict([{name: value for name, value in row.items() if name != "site"} for row in rows])
    np.testing.assert_allclose(model.predict(table.drop(columns="site")), without, rtol=1e-6)


def test_wandb_keeps_a_run_offline_and_goes_on_with_its_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="dmoe[wandb] is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    record(tmp_path / "run", "wandb", False, 3, **{"train.batch_size": 64})
    record(tmp_path / "run", "wandb", True, 4, **{"train.batch_size": 128})
    folders = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    # Two runs of one second have folders that W&B tells apart by a number at their end.
    (kept,) = {next(folder.glob("*.wandb")).stem.removeprefix("run-") for folder in folders}
    assert ids_of(str(tmp_path / "run")) == {"wandb": kept}
    assert [found[0] for found in map(steps_of, folders)] == [(3, 1 / 4), (4, 1 / 5)]


def steps_of(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of each line of an offline run, by W&B's own reader."""
    import json

    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store, found = DataStore(), []
    store.open_for_scan(str(next(folder.glob("*.wandb"))))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        if "train/loss" in values:
            found.append((values["step"], values["train/loss"]))
    return found
