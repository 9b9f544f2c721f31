"""Runs that overflow: whatever made them is named, on two ranks, and no checkpoint of theirs is kept."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.testing.elastic import launch
from dmoe.testing.small_data import make_data_set
from tests.distributed.test_faults import CONFIG


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("overflow")
    (root / "config.yaml").write_text(CONFIG)
    for name in ("sound", "large"):
        (root / name).mkdir()
        make_data_set(root / name, {"train": 1000, "validation": 200, "test": 200})
    path = root / "large" / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    values = table["I2"].to_numpy().copy()
    # In the second half of the second batch, which is rank 1's.
    values[64 + 50] = 3e38
    pq.write_table(table.set_column(table.column_names.index("I2"), "I2", pa.array(values)), path, row_group_size=256)
    manifest = json.loads((root / "large" / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (root / "large" / "manifest.json").write_text(json.dumps(manifest))
    return root


@pytest.mark.parametrize(
    ("data", "override", "named"),
    [
        ("large", "data.shuffle=none", "dense feature I2 reaches 3e+38"),
        ("sound", "correlation.alpha=1e38", "correlation.alpha=1e+38"),
        ("sound", "optimizer.embedding_l2=1e38", "optimizer.embedding_l2=1e+38"),
    ],
)
def test_the_cause_is_named(place, data, override, named):
    folder = place / override.partition("=")[0]
    arguments = ["--config", f"{place}/config.yaml", "--set", f"data.path={place}/{data}", f"run.dir={folder}/run", override]
    outcome = launch(folder, 2, arguments)
    assert set(outcome.codes.values()) == {2}, outcome.said
    (line,) = [line for line in outcome.said.splitlines() if line.startswith("dmoe.train: ")]
    assert named in line
    assert ".lr" not in line
    assert not list((folder / "run" / "checkpoints").glob("*/index.json"))
