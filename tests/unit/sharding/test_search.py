"""The search against every plan there is, on problems small enough to try them all."""

import itertools

import numpy as np
import pytest

from dmoe.sharding.planner.cost.enumerator import Candidate
from dmoe.sharding.planner.search.partitioner import Room
from dmoe.sharding.planner.search.problem import Problem
from dmoe.sharding.planner.search.search import search


def candidate(name, times, hbm, ddr=0.0):
    """Equal shards but for their times, on any ranks."""
    count = len(times)
    sizes = tuple((10, 4) for _ in times)
    return Candidate("column_wise", name, sizes, sizes, np.array(times), np.full(count, float(hbm)), np.full(count, float(ddr)))


def problem(candidates, kinds, ranks, hbm, ddr=1e3):
    room = Room(1, ranks, np.full(ranks, float(hbm)), np.full(ranks, float(ddr)))
    return Problem(tuple(map(tuple, candidates)), tuple(kinds), (None,) * len(kinds), room)


def best_of_all(asked):
    every = itertools.product(*(range(len(asked.candidates[kind])) for kind in asked.kinds))
    placed = [asked.place(picks) for picks in every]
    return min((one.score for one in placed if one is not None), default=None)


def drawn(seed):
    """Four tables of two or three kinds, whose faster candidates take more of a memory that is too small for all of them."""
    draw = np.random.default_rng(seed)
    candidates = []
    for _ in range(draw.integers(2, 4)):
        size = draw.uniform(1, 8)
        fast, slow = draw.uniform(0.1, 1), draw.uniform(2, 12)
        candidates.append(
            [
                candidate("whole", [fast * 2], size),
                candidate("halves", [fast * 1.2] * 2, size / 2),
                candidate("host", [slow], size * 0.2, size),
                candidate("host halves", [slow * 0.6] * 2, size * 0.1, size / 2),
            ]
        )
    kinds = [int(kind) for kind in draw.integers(0, len(candidates), 4)]
    return problem(candidates, kinds, ranks=2, hbm=sum(candidates[kind][0].hbm.sum() for kind in kinds) * draw.uniform(0.2, 0.6))


def test_of_alike_tables_as_many_lie_in_the_fast_memory_as_fit():
    # Room for one of the fast ones on each of two ranks, beside the small share that the others leave there.
    asked = problem([[candidate("fast", [0.1], 8), candidate("slow", [1.0], 0.5)]], [0] * 5, ranks=2, hbm=10)
    found = search(asked)
    assert sorted(found.picks) == [0, 0, 1, 1, 1]
    assert found.placed.score == best_of_all(asked)


def test_tables_that_only_gain_together_change_together():
    # One alone leaves the critical rank's time to the other: neither is better by itself.
    asked = problem([[candidate("one", [4.0], 1), candidate("two", [1.9, 1.9], 1)]], [0, 0], ranks=2, hbm=10)
    assert search(asked).picks == (1, 1)


def test_tables_that_only_gain_together_lie_on_every_rank():
    # Four large shards fill four ranks. A smaller one beside one of them takes longer than both smaller ones on every rank, which cost
    # more in all.
    whole = [
        Candidate("table_wise", "fused", np.array([[10, 4]]), np.array([[0, 0]]), np.array([t]), np.ones(1), np.zeros(1))
        for t in (8, 6, 5.9)
    ]
    everywhere = [
        Candidate("data_parallel", "dense", np.full((4, 2), 4), np.zeros((4, 2), int), np.full(4, time), np.ones(4), np.zeros(4))
        for time in (1.6, 1.55)
    ]
    room = Room(1, 4, np.full(4, 9.0), np.full(4, 9.0))
    asked = Problem(((whole[0],), (whole[1], everywhere[0]), (whole[2], everywhere[1])), (0, 0, 0, 0, 1, 2), (None,) * 6, room)
    found = search(asked)
    assert found.picks == (0, 0, 0, 0, 1, 1)
    assert found.placed.time.max() == pytest.approx(8 + 1.6 + 1.55)
    # No rank holds two of the large ones, and the rest takes 3.15 ms of all: this is the best.
    assert found.bound <= 11.15


def test_small_problems_are_solved_nearly_as_well_as_by_trying_all():
    ratios = []
    for seed in range(60):
        asked = drawn(seed)
        best, found = best_of_all(asked), search(asked)
        assert (best is None) == (found is None), seed
        if found is not None:
            ratios.append(found.placed.score[0] / best[0])
            assert asked.place(found.picks).score == found.placed.score
            assert search(asked).picks == found.picks
    # Seen: 48 of 60 exactly, the mean 1.026; before tables were changed in pairs and by kind, 33 and 1.109.
    assert min(ratios) >= 1 - 1e-9
    assert np.mean(np.array(ratios) < 1 + 1e-9) >= 0.75
    assert np.mean(ratios) < 1.05


def test_where_nothing_fits_there_is_no_solution():
    assert search(problem([[candidate("one", [1.0], 11)]], [0], ranks=2, hbm=10)) is None


@pytest.mark.parametrize("ranks", [1, 3])
def test_room_is_kept(ranks):
    asked = problem([[candidate("fast", [0.1], 4), candidate("slow", [1.0], 1)]], [0] * 6, ranks=ranks, hbm=9)
    found = search(asked)
    held = np.zeros(ranks)
    for one, where in zip(asked.chosen(found.picks), found.placed.ranks, strict=True):
        np.add.at(held, where, one.hbm)
    assert held.max() <= 9
