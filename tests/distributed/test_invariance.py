"""The plan, the layout and the number of ranks change nothing but rounding: losses and weights of 20 steps agree.

The whole matrix: `python tools/bench/invariance.py`.
"""

import pytest

from dmoe.testing.plans import MIXED, overrides
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import largest_difference, train_and_tell

STEPS = 20
BOUND = 2e-4
"""Of the weights after 20 steps, relative to a tensor's largest entry. The sums of a global batch are taken in another order."""


@pytest.fixture(scope="module")
def alone(ranks, data_set):
    """One rank, table-wise: what every other run is compared with."""
    (result,) = ranks(1).run(train_and_tell, data_set, STEPS, "sharding.types=[table_wise]")
    return result


PLANS = ["data_parallel", "table_wise", "row_wise", "column_wise", "table_column_wise", "table_row_wise", "grid_shard"]


@pytest.mark.parametrize("types", PLANS)
def test_every_sharding_type_on_two_nodes_of_two_ranks(ranks, data_set, alone, types):
    check(ranks(4).run(train_and_tell, data_set, STEPS, f"sharding.types=[{types}]"), alone, {types})


@pytest.mark.parametrize("types", ["data_parallel", "column_wise"])
@pytest.mark.parametrize("layout", ["wide", "separate"])
def test_layouts_on_two_ranks(ranks, data_set, alone, types, layout):
    overrides = (f"sharding.types=[{types}]", f"model.embedding.layout={layout}")
    check(ranks(2).run(train_and_tell, data_set, STEPS, *overrides), alone, {types})


def test_uneven_shares_of_three_ranks(ranks, data_set, alone):
    check(ranks(3).run(train_and_tell, data_set, STEPS, "sharding.types=[row_wise]"), alone, {"row_wise"})


@pytest.mark.parametrize(
    ("cardinalities", "types", "kind", "layout"),
    [
        ((40, 4, 2, 25), "row_wise", "adagrad", "separate"),
        ((25, 2, 60, 5), "row_wise", "rowwise_adagrad", "separate"),
        ((2, 2, 2, 2), "row_wise", "sgd", "wide"),
        pytest.param((25, 2, 60, 4), "table_row_wise", "sgd", "separate", marks=pytest.mark.slow),
        pytest.param((40, 4, 2, 25), "grid_shard", "adagrad", "wide", marks=pytest.mark.slow),
    ],
)
def test_shards_without_rows_beside_tables_of_other_dims(ranks, tmp_path, cardinalities, types, kind, layout):
    """Of 5 rows on 4 ranks, the last rank has none. FBGEMM's update on CPUs took an empty table and the next one for one table, and a rank
    whose tables are all empty for a GPU."""
    make_data_set(tmp_path / "d", cardinalities=cardinalities)
    experts = "model.experts=[{kind: crossnet, dim: 4}, {kind: mlp, hidden: [16], activation: silu, dim: 12}]"
    common = (str(tmp_path / "d"), 8, experts, f"optimizer.tables.kind={kind}", f"model.embedding.layout={layout}")
    (expected,) = ranks(1).run(train_and_tell, *common, "sharding.types=[table_wise]")
    check(ranks(4).run(train_and_tell, *common, f"sharding.types=[{types}]"), expected, {types})


@pytest.mark.parametrize(("size", "plan", "layout"), [(1, "mixed", "separate"), (2, "mixed", "wide"), (4, "mixed on hosts", "separate")])
def test_plans_of_four_sharding_types(ranks, data_set, alone, size, plan, layout):
    check(ranks(size).run(train_and_tell, data_set, STEPS, *overrides(plan, layout)), alone, set(MIXED[plan]))


def test_the_planners_own_choice(ranks, data_set, alone):
    check(ranks(2).run(train_and_tell, data_set, STEPS), alone)


@pytest.mark.parametrize("kind", ["sgd", "adagrad"])
def test_wide_equals_separate(ranks, data_set, kind):
    runs = [
        ranks(2).run(train_and_tell, data_set, STEPS, f"optimizer.tables.kind={kind}", f"model.embedding.layout={layout}")[0]
        for layout in ("wide", "separate")
    ]
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-5)
    assert largest_difference(runs[0][1], runs[1][1]) < BOUND


@pytest.mark.parametrize("types", ["data_parallel", "row_wise"])
def test_rowwise_adagrad_is_planned_so_that_it_stays_one_model(ranks, data_set, types):
    common = ("optimizer.tables.kind=rowwise_adagrad", "model.embedding.dim=10")
    (expected,) = ranks(1).run(train_and_tell, data_set, STEPS, *common, "sharding.types=[table_wise]")
    check(ranks(2).run(train_and_tell, data_set, STEPS, *common, f"sharding.types=[{types}]"), expected, {types})


def check(results, expected, types=None) -> None:
    losses, tables, dense, _ = expected
    for got_losses, got_tables, got_dense, got_types in results:
        assert types is None or set(got_types) == types
        assert got_losses == pytest.approx(losses, rel=1e-5)
        assert largest_difference(tables, got_tables) < BOUND
        assert largest_difference(dense, got_dense) < BOUND
