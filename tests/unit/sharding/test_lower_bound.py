"""The lower bound against every plan there is: all candidates of all tables on all ranks, on problems small enough to try them."""

import itertools

import numpy as np
import pytest

from dmoe.sharding.plan.report.show_words import over_bound
from dmoe.sharding.planner.cost.enumerator import Candidate
from dmoe.sharding.planner.search.lower_bound import lower_bound
from dmoe.sharding.planner.search.partitioner import Room
from dmoe.sharding.planner.search.problem import Problem
from dmoe.sharding.planner.search.search import search


def candidate(kind, times, hbm, ddr):
    sizes = np.full((len(times), 2), 4)
    return Candidate(kind, f"{kind}{len(times)}", sizes, sizes, np.array(times), np.array(hbm), np.array(ddr))


def drawn(seed):
    """Two or three tables on two hosts of one or two ranks, with room for all on the devices or not."""
    draw = np.random.default_rng(seed)
    local, alike = int(draw.integers(1, 3)), bool(draw.integers(2))
    ranks, kinds = 2 * local, []
    for _ in range(1 if alike else 3):
        size, time = draw.uniform(1, 6), draw.uniform(0.5, 2)
        kinds.append(
            (
                candidate("table_wise", [time], [size], [0.0]),
                candidate("column_wise", [time * 0.6, time * draw.uniform(0.5, 0.6)], [size / 2] * 2, [0.0] * 2),
                candidate("table_wise", [time * 4], [size / 8], [size]),
                candidate("row_wise", [time * 0.7] * ranks, [size / ranks] * ranks, [0.0] * ranks),
                candidate("table_row_wise", [time * 0.6] * local, [size / local] * local, [0.0] * local),
            )
        )
    of_table = (0, 0, 0) if alike else (0, 1, 2)
    hbm = draw.uniform(0.4, 1.5) * sum(kinds[kind][0].hbm[0] for kind in of_table) / ranks
    return Problem(tuple(kinds), of_table, (None,) * 3, Room(2, local, np.full(ranks, hbm), np.full(ranks, 20.0)))


def uneven(seed):
    """Two large tables that lie on a rank each, and four that can lie on all three, for a little more time in all."""
    draw = np.random.default_rng(seed)
    kinds = [(candidate("table_wise", [draw.uniform(6, 9)], [1.0], [0.0]),) for _ in range(2)]
    for _ in range(4):
        time = draw.uniform(2, 6)
        kinds.append(
            (
                candidate("table_wise", [time], [1.0], [0.0]),
                candidate("data_parallel", [time * draw.uniform(0.34, 0.42)] * 3, [1.0] * 3, [0.0] * 3),
            )
        )
    return Problem(tuple(kinds), tuple(range(6)), (None,) * 6, Room(1, 3, np.full(3, 9.0), np.full(3, 1.0)))


def places(one, room):
    ranks = len(room.hbm)
    if one.sharding_type in ("row_wise", "data_parallel"):
        return [tuple(range(ranks))]
    if one.sharding_type == "table_row_wise":
        return [tuple(range(node * room.ranks_a_node, (node + 1) * room.ranks_a_node)) for node in range(room.nodes)]
    return list(itertools.product(range(ranks), repeat=len(one.time)))


def best_of_all(asked):
    ways = [[(one, where) for one in asked.candidates[kind] for where in places(one, asked.room)] for kind in asked.kinds]
    best = np.inf
    for chosen in itertools.product(*ways):
        time, hbm, ddr = ([0.0] * len(asked.room.hbm) for _ in range(3))
        for one, where in chosen:
            for shard, rank in enumerate(where):
                time[rank] += one.time[shard]
                hbm[rank] += one.hbm[shard]
                ddr[rank] += one.ddr[shard]
        if max(hbm) <= asked.room.hbm[0] + 1e-9 and max(ddr) <= asked.room.ddr[0]:
            best = min(best, max(time))
    return best


@pytest.mark.slow
def test_no_plan_at_all_is_under_the_bound():
    shares = []
    for seed in range(30):
        asked = drawn(seed)
        best = best_of_all(asked)
        found = search(asked, gap=0.0)
        if np.isinf(best):
            assert found is None, seed
            continue
        if found is None:
            continue
        bound = lower_bound(asked.candidates, asked.kinds, asked.room, above=best * 2)
        assert bound <= best * (1 + 1e-9), seed
        assert 0 < found.bound <= best * (1 + 1e-9), seed
        assert found.placed.time.max() >= best * (1 - 1e-9), seed
        shares.append(bound / best)
    # A bound that is always right and never near would be worth nothing.
    assert len(shares) > 15
    assert np.mean(shares) > 0.8


def test_tables_on_every_rank_leave_what_the_others_share():
    bounds, times = [], []
    for seed in range(12):
        asked = uneven(seed)
        best, found = best_of_all(asked), search(asked)
        assert 0 < found.bound <= best * (1 + 1e-9), seed
        bounds.append(found.bound / best)
        times.append(found.placed.time.max() / best)
    assert np.mean(bounds) > 0.93
    assert np.mean(times) < 1.01


@pytest.mark.parametrize(("tables", "ranks", "most"), [(5, 2, 3), (9, 4, 3), (12, 4, 3), (13, 4, 4)])
def test_whole_tables_are_counted_by_the_rank(tables, ranks, most):
    # Their mean over the ranks would be a lower one: no rank holds half a table.
    kinds = ((candidate("table_wise", [2.0], [1.0], [0.0]),),)
    asked = Problem(kinds, (0,) * tables, (None,) * tables, Room(1, ranks, np.full(ranks, 100.0), np.full(ranks, 1.0)))
    found = search(asked)
    assert found.placed.time.max() == 2.0 * most
    assert found.bound == pytest.approx(2.0 * most, rel=1e-3)


def test_memory_that_binds_has_its_price():
    # One of two tables has to lie in the host's memory; without memory's price both would be fast.
    kinds = ((candidate("table_wise", [1.0], [8.0], [0.0]), candidate("table_wise", [9.0], [1.0], [8.0])),)
    asked = Problem(kinds, (0, 0), (None, None), Room(1, 1, np.array([10.0]), np.array([20.0])))
    found = search(asked)
    assert found.placed.time.max() == 10.0
    # Half of the second table's way to the host would do for a relaxation.
    assert 7.0 < found.bound <= 10.0


def test_a_bound_is_told_rounded_up_and_not_of_an_edited_file():
    assert over_bound(10.0, 10.71) == "at most 7.1% above a lower bound"
    assert over_bound(10.0, 10.7001).startswith("at most 7.1%")
    assert over_bound(10.0, 10.0).startswith("at most 0.0%")
    assert over_bound(0.0, 10.0) == over_bound(10.0, 9.0) == ""
