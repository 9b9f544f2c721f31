"""Input and output of the search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from dmoe.sharding.planner.cost.enumerator import Candidate
from dmoe.sharding.planner.search.partitioner import Placed, Room, place

Open = tuple[tuple[int, ...], ...]
"""For each kind of table, the indices of the candidates that may be picked."""
Attempt = Callable[[tuple[int, ...]], Placed | None]


@dataclass(frozen=True)
class Problem:
    """`candidates[kinds[t]]` are the candidates of table t; equal tables have the same kind."""

    candidates: tuple[tuple[Candidate, ...], ...]
    kinds: tuple[int, ...]
    pinned: tuple[tuple[int, ...] | None, ...]
    room: Room

    @cached_property
    def _all_room(self) -> tuple[float, float]:
        """Total bytes of device and host memory, with a tolerance for rounding."""
        return tuple(float(room.clip(0).sum()) * (1 + 1e-9) for room in (self.room.hbm, self.room.ddr))  # type: ignore[return-value]

    def chosen(self, picks: Sequence[int]) -> list[Candidate]:
        return [self.candidates[kind][pick] for kind, pick in zip(self.kinds, picks, strict=True)]

    def place(self, picks: Sequence[int]) -> Placed | None:
        """The better placement of the two orders of tables; None if neither fits."""
        chosen = self.chosen(picks)
        hbm, ddr = (sum(bytes_) for bytes_ in zip(*(one.needs for one in chosen), strict=True))
        if hbm > self._all_room[0] or ddr > self._all_room[1]:
            return None
        found = [place(chosen, self.pinned, self.room, by) for by in ("time", "storage")]
        return min((one for one in found if one is not None), key=lambda one: one.score, default=None)


@dataclass(frozen=True)
class Solution:
    """
    Attributes:
        picks: index of each table's candidate.
        placements: number of plans tried by placing all tables; steps of local search do not count.
        bound: lower bound on the critical rank's time of any plan, in milliseconds.
        complete: False if the search was interrupted.
    """

    picks: tuple[int, ...]
    placed: Placed
    placements: int
    bound: float = 0.0
    complete: bool = True
