"""The lowest and the highest value of each feature, by which constants are found."""

from collections.abc import Iterable, Mapping, Sequence

Extent = Mapping[str, tuple[float, float]]
"""Feature -> (lowest, highest) of its numbers or ids."""


def joined(extents: Iterable[Extent]) -> dict[str, tuple[float, float]]:
    """Of the rows of all."""
    found: dict[str, tuple[float, float]] = {}
    for one in extents:
        for name, (low, high) in one.items():
            before = found.get(name, (low, high))
            found[name] = min(before[0], low), max(before[1], high)
    return found


def constants(extents: Iterable[Extent], names: Sequence[str]) -> list[str]:
    """Those of the features `names` that have one value in all rows; without the features of no extent, which bags are."""
    extent = joined(extents)
    return [name for name in names if name in extent and extent[name][0] == extent[name][1]]
