"""What is searched, and what is found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from dmoe.sharding.planner.cost.enumerator import Candidate
from dmoe.sharding.planner.search.partitioner import Placed, Room, place

Open = tuple[tuple[int, ...], ...]
"""For each kind of table the candidates that may be picked."""
Attempt = Callable[[tuple[int, ...]], Placed | None]


@dataclass(frozen=True)
class Problem:
    """`kinds[t]` is the list of candidates of table t, which tables that are alike share."""

    candidates: tuple[tuple[Candidate, ...], ...]
    kinds: tuple[int, ...]
    pinned: tuple[tuple[int, ...] | None, ...]
    room: Room

    @cached_property
    def _all_room(self) -> tuple[float, float]:
        """Bytes, with what sums in another order may differ by."""
        return tuple(float(room.clip(0).sum()) * (1 + 1e-9) for room in (self.room.hbm, self.room.ddr))  # type: ignore[return-value]

    def chosen(self, picks: Sequence[int]) -> list[Candidate]:
        return [self.candidates[kind][pick] for kind, pick in zip(self.kinds, picks, strict=True)]

    def place(self, picks: Sequence[int]) -> Placed | None:
        """The better of the two orders; None where they do not fit, which picks larger than all room never do."""
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
        picks: the index of each table's candidate.
        placements: how many plans were tried, all of whose tables were placed.
        bound: milliseconds that no plan's critical rank is under.
        complete: the search was not interrupted.
    """

    picks: tuple[int, ...]
    placed: Placed
    placements: int
    bound: float = 0.0
    complete: bool = True
