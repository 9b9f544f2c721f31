"""Plans for where neither memory alone is enough: some tables on the devices, the others in the hosts' memory.

With a share s of a price on the devices' memory and 1 - s on the hosts', every table takes the candidate that costs least. At s = 0 the
devices overflow, at s = 1 the hosts do. Of the two nearest shares one leaves the devices too full and the other does not: between them,
tables change from the first's picks to the second's one by one, as many as both memories allow.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.planner.cost.enumerator import Candidate, Vector
from dmoe.sharding.planner.search.lower_bound import first_least
from dmoe.sharding.planner.search.partitioner import Room

PRICES = (0.1, 1.0, 10.0, 1e3, 1e6)
"""Of all memory, in units of what all tables take at least; the last one asks for bytes alone."""
BOUNDS = 6
"""On a shard's time."""
FILLED = ((1.0, 1.0), (0.97, 0.2), (0.97, 0.03), (0.9, 0.2), (0.9, 0.1), (0.8, 1.0))
"""Of all room, what tables may fill, and of one rank's, what a shard may: large shards do not fill every rank."""
HALVINGS = 24
Picks = tuple[int, ...]


def mixtures(
    candidates: Sequence[Sequence[Candidate]], open_: Sequence[Sequence[int]], kinds: Sequence[int], room: Room
) -> Iterator[Iterator[Picks]]:
    """For each bound on a shard's time, loosest first, picks that fit all ranks' room in all: the fastest first.

    Args:
        candidates, kinds: as of a `Problem`.
        open_: the candidates of each kind that may be picked.
    """
    flat = [group[i] for some, group in zip(open_, candidates, strict=True) for i in some]
    numbers = np.array([i for some in open_ for i in some])
    lengths = np.array([len(some) for some in open_])
    first, of_table = np.cumsum(lengths) - lengths, np.array(kinds)
    longest, total = np.array([(one.longest, one.total_time) for one in flat]).T
    whole = np.array([max(room.hbm.clip(0).sum(), 1.0), max(room.ddr.clip(0).sum(), 1.0)])
    shares = np.array([(one.hbm.sum(), one.ddr.sum()) for one in flat]) / whole
    sizes = np.array([(one.hbm.max(), one.ddr.max()) for one in flat]) / [max(room.hbm.max(), 1.0), max(room.ddr.max(), 1.0)]
    largest = sizes.max(1)
    least_largest = np.repeat(np.minimum.reduceat(largest, first), lengths)
    unit = float(np.minimum.reduceat(total, first)[of_table].sum())
    bounds = np.unique(longest[longest >= np.minimum.reduceat(longest, first).max()])

    def picked(allowed: NDArray[np.bool_], price: Vector) -> NDArray[np.int64]:
        """The place in `flat` of each table's candidate."""
        return first_least(np.where(allowed, total + unit * (shares @ price), np.inf), first)[of_table]

    def of_bound(limit: float) -> Iterator[Picks]:
        for full, shard in FILLED:
            allowed = (longest <= limit) & (largest <= np.maximum(least_largest, shard))
            if not np.logical_or.reduceat(allowed, first).all():
                continue
            for price in PRICES:
                for places in _between(partial(picked, allowed), price, shares / full):
                    yield tuple(numbers[places].tolist())

    for limit in bounds[np.unique(np.linspace(len(bounds) - 1, 0, BOUNDS).round().astype(int))][::-1]:
        yield of_bound(float(limit))


def _between(picked: Callable[[Vector], NDArray[np.int64]], price: float, shares: Vector) -> Iterator[NDArray[np.int64]]:
    """
    Args:
        shares: [candidates, 2] of the room of both memories.
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
    # Those first that take least of the hosts' memory for what they spare of the devices'.
    order = np.argsort(-spared[:, 0] / np.maximum(-spared[:, 1], 1e-12), kind="stable")
    order = order[over[order] != fitting[order]]
    left = shares[over].sum(0) - np.concatenate([np.zeros((1, 2)), np.cumsum(spared[order], 0)])
    fits = np.flatnonzero((left <= 1).all(1))
    for many in dict.fromkeys(fits[np.linspace(0, len(fits) - 1, 3).round().astype(int)].tolist()) if len(fits) else ():
        mixed = over.copy()
        mixed[order[:many]] = fitting[order[:many]]
        yield mixed
