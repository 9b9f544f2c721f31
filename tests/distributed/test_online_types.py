"""Versions of a run whose tables are sharded in all seven ways, data-parallel included: what is published is the full export to the bit."""

import json
from pathlib import Path

import pytest

from dmoe.config.config import load_config
from dmoe.config.sections import ShardingTypeName
from dmoe.online.publish import Publisher
from dmoe.serve.export.delta import read_delta
from dmoe.serve.export.materialise import materialise
from dmoe.testing.elastic import launch
from dmoe.testing.growing_log import write_config, write_window
from tests.distributed.test_online import contents, full_export

WINDOWS = 3
TYPES = {
    "site__0": "data_parallel",
    "site__1": "table_wise",
    "user__0": "row_wise",
    "user__1": "column_wise",
    "tags__0": "table_row_wise",
    "tags__1": "table_column_wise",
    "price_bucket__0": "grid_shard",
    "price_bucket__1": "data_parallel",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run on two ranks, a table for each type and more."""
    folder = tmp_path_factory.mktemp("types")
    for number in range(1, WINDOWS + 1):
        write_window(folder / "logs" / f"w{number}.csv", number)
    tables = ", ".join(f"{name}: {{types: [{kind}], min_partition: 4}}" for name, kind in TYPES.items())
    given = ["--set", "model.embedding.layout=separate", f"sharding.tables={{{tables}}}"]
    arguments = ["--config", write_config(folder), "--source", str(folder / "logs"), "--run", str(folder / "run"), "--once", *given]
    outcome = launch(folder, 2, arguments, command="online")
    assert outcome.succeeded, outcome.said
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["fp32", "fp16", "int8"])
def test_versions_of_all_sharding_types_are_the_full_export_to_the_bit(tmp_path, run, rows):
    plan = json.loads((run / "plan.json").read_text())
    assert {name: one["sharding_type"] for name, one in plan["tables"].items()} == TYPES
    assert set(TYPES.values()) == set(ShardingTypeName.__args__)
    settings = [f"online.versions.rows={rows}", "online.versions.full_every=9"]
    config = load_config(str(run / "config.yaml"), settings)
    publisher = Publisher(str(tmp_path / "versions"), str(run), config)
    kinds = []
    for line in map(json.loads, (run / "ledger.jsonl").read_text().splitlines()):
        made = publisher.publish(line["window"], str(run / "checkpoints" / f"step-{line['step']:09d}"), f"{line['window']:06d}")
        kinds.append(made["kind"])
        version = str(tmp_path / "versions" / "versions" / made["version"])
        full = tmp_path / "full" / made["version"]
        full_export(run, line, settings, full)
        assert contents(Path(materialise(version, str(tmp_path / "made" / made["version"])))) == contents(full)
    assert kinds == ["full", "delta", "delta"]
    # Rows of every feature's tables changed, so that every type had its part in the deltas.
    assert min(read_delta(version).changed.values()) > 0
