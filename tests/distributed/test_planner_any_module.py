"""`dmoe.Planner`'s plans of models that are not dmoe's train as the unsharded models do."""

import pytest
import torch

from tests.distributed.foreign_models import train_planned, train_whole

BAG_TYPES = ["data_parallel", "table_wise", "column_wise", "row_wise", "table_row_wise", "table_column_wise", "grid_shard"]


def check(pool, kind: str, types: tuple[str, ...], by_torchrec: bool = False, without: tuple[int, ...] = ()) -> set[str]:
    found = pool.run(train_planned, kind, types, by_torchrec, without)
    expected = train_whole(kind)
    for step, whole in enumerate(expected):
        together = torch.cat([logits[step] for logits, _ in found])
        torch.testing.assert_close(together, whole, rtol=1e-4, atol=1e-5)
    assert (expected[-1] - expected[0]).abs().max() > 0.01, "nothing was learnt"
    return set(found[0][1].values())


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", BAG_TYPES)
def test_dlrm_of_one_type(ranks, world_size, kind):
    assert check(ranks(world_size), "dlrm", (kind,)) == {kind}


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("types", [(), ("table_wise",), ("column_wise",), ("row_wise",)])
def test_several_collections_with_weights_and_a_sequence(ranks, world_size, types):
    used = check(ranks(world_size), "mixed", types)
    assert not types or used == set(types)


def test_a_plan_of_torchrecs_own_planner(ranks):
    assert check(ranks(2), "mixed", (), by_torchrec=True)


@pytest.mark.parametrize("kind", ["dlrm", "mixed"])
def test_a_rank_that_holds_no_table_trains_with_the_others(ranks, kind):
    assert check(ranks(2), kind, (), without=(1,)) <= {"table_wise", "column_wise", "table_column_wise"}
