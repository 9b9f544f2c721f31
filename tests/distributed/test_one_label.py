"""A run whose validation rows have one label only: its checkpoints are those of any run, and the logloss decides which is the best."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.checkpoint import inspect as look
from dmoe.checkpoint import of_run
from dmoe.json_text import parse_json
from dmoe.serve.export.export import export
from dmoe.testing.elastic import launch
from dmoe.testing.small_data import make_data_set
from tests.distributed.test_faults import CONFIG


@pytest.fixture
def data(tmp_path):
    """Only negative rows to validate with."""
    folder = tmp_path / "data"
    folder.mkdir()
    make_data_set(folder, {"train": 600, "validation": 200, "test": 200})
    manifest = json.loads((folder / "manifest.json").read_text())
    split = manifest["splits"]["validation"]
    for shard in split["shards"]:
        table = pq.read_table(folder / shard["path"])
        column = table.column_names.index("label")
        pq.write_table(table.set_column(column, "label", pa.array([0] * len(table), pa.uint8())), folder / shard["path"])
        shard |= {"positives": 0, "sha256": hashlib.sha256((folder / shard["path"]).read_bytes()).hexdigest()}
    split["positives"] = 0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_it_trains_resumes_and_is_exported(tmp_path, data):
    (tmp_path / "config.yaml").write_text(CONFIG)
    arguments = ["--config", f"{tmp_path}/config.yaml", "--resume", "--set", f"data.path={data}", f"run.dir={tmp_path}/run"]
    # The guard judges the AUC of every validation: there is none to judge.
    arguments += ["train.guard.after_steps=1", "train.guard.max_loss_ratio=99"]
    first = launch(tmp_path, 1, arguments)
    assert first.succeeded, first.said
    before_first_step, _, _ = first.said.partition("validation at step")
    assert "split 'validation': all 200 rows are negative" in before_first_step
    more = launch(tmp_path, 1, [*arguments, "train.epochs=2"], number=1)
    assert more.succeeded, more.said
    assert "resuming from step 10" in more.said

    written = [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".json", ".jsonl")]
    assert {"index.json", "metrics.json", "metrics.jsonl", "plan.json", "manifest.json", "environment.json"} <= {
        one.name for one in written
    }
    for path in written:
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            parse_json(text)
    lines = [parse_json(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    validations = {line["step"]: line for line in lines if line["kind"] == "validation"}
    assert {line["auc"] for line in validations.values()} == {None}
    newest = of_run.newest(f"{tmp_path}/run")
    progress = look.Contents(newest).index.progress
    best = min(validations, key=lambda step: validations[step]["logloss"])
    assert (progress["best_auc"], progress["best_step"]) == (None, best)
    assert progress["best_logloss"] == validations[best]["logloss"]
    assert "sound" in look.verify(newest)
    assert export(f"{tmp_path}/run", f"{tmp_path}/scorer").step == best
