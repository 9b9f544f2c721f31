"""Plans with some tables in device memory and the others in host memory, for when neither memory alone is sufficient.

A price is divided into a share s on device memory and 1 - s on host memory, and each table uses the candidate with the least cost. At
s = 0 device memory overflows, at s = 1 host memory does. Bisection finds two near values of s: with one, device memory is too full, with
the other it is not. Tables then change one by one from the first picks to the second, as many as fit in both memories.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.planner.cost.enumerator import Vector
from dmoe.sharding.planner.search.problem import Open, Problem
from dmoe.sharding.planner.search.proposals import Flat

PRICES = (0.1, 1.0, 10.0, 1e3, 1e6)
"""Prices of the whole memory, in units of the least total time of all tables; with the last price, only bytes matter."""
BOUNDS = 6
"""Number of bounds on the time of a shard to try."""
FILLED = ((1.0, 1.0), (0.97, 0.2), (0.97, 0.03), (0.9, 0.2), (0.9, 0.1), (0.8, 1.0))
"""(Share of the total room that tables may fill, share of a rank's room that a shard may fill): large shards leave gaps on ranks."""
HALVINGS = 24
Picks = tuple[int, ...]


def mixtures(problem: Problem, open_: Open) -> Iterator[Iterator[Picks]]:
    """For each bound on a shard's time, loosest first, an iterator of picks that fit the total room of all ranks, fastest first."""
    flat, room = Flat(problem, open_), problem.room
    longest = flat.longest
    whole = np.array([max(room.hbm.clip(0).sum(), 1.0), max(room.ddr.clip(0).sum(), 1.0)])
    shares = np.array([(one.hbm.sum(), one.ddr.sum()) for one in flat.all]) / whole
    sizes = np.array([(one.hbm.max(), one.ddr.max()) for one in flat.all]) / [max(room.hbm.max(), 1.0), max(room.ddr.max(), 1.0)]
    largest = sizes.max(1)
    least_largest = np.repeat(flat.least(largest), np.diff([*flat.first, len(largest)]))
    unit = float(flat.least(flat.total)[flat.kinds].sum())
    bounds = np.unique(longest[longest >= flat.least(longest).max()])

    def picked(allowed: NDArray[np.bool_], price: Vector) -> NDArray[np.int64]:
        return flat.picked(np.where(allowed, flat.total + unit * (shares @ price), np.inf))

    def of_bound(limit: float) -> Iterator[Picks]:
        for full, shard in FILLED:
            allowed = (longest <= limit) & (largest <= np.maximum(least_largest, shard))
            if not np.logical_or.reduceat(allowed, flat.first).all():
                continue
            for price in PRICES:
                for places in _between(partial(picked, allowed), price, shares / full):
                    yield flat.picks(places)

    for limit in bounds[np.unique(np.linspace(len(bounds) - 1, 0, BOUNDS).round().astype(int))][::-1]:
        yield of_bound(float(limit))


def _between(picked: Callable[[Vector], NDArray[np.int64]], price: float, shares: Vector) -> Iterator[NDArray[np.int64]]:
    """
    Args:
        shares: [candidates, 2] bytes of a candidate as a share of the total room of device and host memory.
    """
    over, fitting = picked(price * np.array([0.0, 1.0])), picked(price * np.array([1.0, 0.0]))
    if shares[fitting, 0].sum() > 1:
        return
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        some = picked(price * np.array([middle, 1 - middle]))
        if shares[some, 0].sum() > 1:
            low, over = middle, some
        else:
            high, fitting = middle, some
    spared = shares[over] - shares[fitting]
    # Tables that free the most device memory per byte of host memory change first.
    order = np.argsort(-spared[:, 0] / np.maximum(-spared[:, 1], 1e-12), kind="stable")
    order = order[over[order] != fitting[order]]
    left = shares[over].sum(0) - np.concatenate([np.zeros((1, 2)), np.cumsum(spared[order], 0)])
    fits = np.flatnonzero((left <= 1).all(1))
    for many in dict.fromkeys(fits[np.linspace(0, len(fits) - 1, 3).round().astype(int)].tolist()) if len(fits) else ():
        mixed = over.copy()
        mixed[order[:many]] = fitting[order[:many]]
        yield mixed
