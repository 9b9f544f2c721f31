"""The hash that maps ids to rows of a shared table, different for each expert. Does not import TorchRec, since scorers use it."""

from torch import Tensor

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


def hashed_rows(ids: Tensor, expert: int, rows: int | Tensor) -> Tensor:
    """Row of each id, in 0 .. rows - 1: splitmix64 of id and expert. Two ids that collide for one expert rarely collide for another.

    Args:
        ids: int64, any shape.
        expert: index of the expert.
        rows: number of rows of the table, or for each id of its table.

    Example:
        >>> [hashed_rows(torch.arange(4), expert, 1000).tolist() for expert in (0, 1)]
        [[767, 207, 448, 277], [850, 617, 812, 730]]
    """
    # int64 sums and products wrap around like unsigned ones. Only a right shift needs care: it must not extend the sign.
    x = ids * 64 + expert + 1
    x = x * GOLDEN
    x = (x ^ _shifted(x, 30)) * FIRST
    x = (x ^ _shifted(x, 27)) * SECOND
    return _shifted(x ^ _shifted(x, 31), 1) % rows


def _shifted(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
