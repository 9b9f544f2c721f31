"""A log with bags, weights and groups on several ranks: plans and layouts change nothing, weights weigh, GAUC is of all ranks' rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.metrics.grouped import grouped_auc
from dmoe.testing.small_run import largest_difference, open_small, small_config, train_and_tell, train_steps
from dmoe.train.evaluate import evaluate
from tests.unit.data.log.logs import TREE, make, make_rows, schema, write_csv

STEPS = 8
BOUND = 2e-4


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tags pooled by their mean, and once more by their sum, beside single-valued features."""
    folder: Path = tmp_path_factory.mktemp("log")
    write_csv(folder / "log.csv", make_rows(900))
    twice = {"name": "tags_sum", "column": "tags", "separator": "|", "pooling": "sum", "min_count": 2}
    return str(make(folder / "d", folder / "log.csv", schema=schema(categorical=[*TREE["categorical"], twice]), rows_per_shard=512))


@pytest.fixture(scope="module")
def alone(ranks, log):
    (result,) = ranks(1).run(train_and_tell, log, STEPS, "sharding.types=[table_wise]")
    return result


@pytest.mark.parametrize(
    ("world_size", "types", "layout"),
    [
        (2, "row_wise", "separate"),
        (4, "grid_shard", "wide"),
        pytest.param(2, "row_wise", "wide", marks=pytest.mark.slow),
        pytest.param(2, "column_wise", "wide", marks=pytest.mark.slow),
        pytest.param(2, "data_parallel", "separate", marks=pytest.mark.slow),
        pytest.param(3, "table_wise", "wide", marks=pytest.mark.slow),
        pytest.param(4, "table_row_wise", "wide", marks=pytest.mark.slow),
    ],
)
def test_plans_layouts_and_ranks_pool_alike(ranks, log, alone, world_size, types, layout):
    overrides = (f"sharding.types=[{types}]", f"model.embedding.layout={layout}")
    for losses, tables, dense, used in ranks(world_size).run(train_and_tell, log, STEPS, *overrides):
        assert used == [types]
        np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
        assert largest_difference(tables, alone[1]) < BOUND
        assert largest_difference(dense, alone[2]) < BOUND


def evaluated(log: str) -> tuple[dict[str, Any], float]:
    """The figures of the test split after a few steps, and the pooling factor that the planner was given for the tags."""
    session = open_small(small_config(log))
    train_steps(session, STEPS)
    figures = evaluate(session, session.reader("test"))
    return figures, session.plan["tables"]["tags_sum"]["pooling_factor"]


def scored(log: str, path: str) -> None:
    session = open_small(small_config(log, "metrics.predictions=true", "metrics.auc=exact"))
    train_steps(session, STEPS)
    evaluate(session, session.reader("test"), final=(path, STEPS))


def scored_and_not_kept(log: str, path: str) -> None:
    session = open_small(small_config(log))
    evaluate(session, session.reader("test"), final=(path, 0))


def test_a_last_evaluation_without_predictions_leaves_no_older_model_s(ranks, log, tmp_path):
    path = tmp_path / "p.npz"
    ranks(1).run(scored, log, str(path))
    with np.load(path) as kept:
        assert int(kept["step"]) == STEPS
    (tmp_path / "other.npz").write_bytes(b"another file")
    ranks(2).run(scored_and_not_kept, log, str(path))
    assert [one.name for one in tmp_path.iterdir()] == ["other.npz"]


def test_gauc_and_weighted_figures_are_of_all_ranks_rows(ranks, log, tmp_path):
    (alone,) = ranks(1).run(evaluated, log)
    for figures, pooling in ranks(3).run(evaluated, log):
        for name in ("auc", "logloss", "calibration", "gauc"):
            assert figures[name] == pytest.approx(alone[0][name], rel=1e-4), name
        assert (figures["rows"], figures["gauc_groups"]) == (alone[0]["rows"], alone[0]["gauc_groups"])
        assert pooling == pytest.approx(load_manifest(log).categorical[-1].mean_ids)
    ranks(1).run(scored, log, str(tmp_path / "p.npz"))
    rows = [row for path in sorted((Path(log) / "test").glob("*")) for row in pq.read_table(path).to_pylist()]
    group, weight = (np.array([row[name] for row in rows]) for name in ("@group", "@weight"))
    with np.load(tmp_path / "p.npz") as kept:
        logit, label = kept["logit"], kept["label"]
    expected = grouped_auc(group, logit, label, weight)
    assert alone[0]["gauc"] == pytest.approx(expected.value, abs=1e-9)
    loss = np.logaddexp(0, logit.astype(np.float64)) - label * logit
    assert alone[0]["logloss"] == pytest.approx(np.average(loss, weights=weight), rel=1e-6)
