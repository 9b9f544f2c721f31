"""Compact text output: bars, histograms, lists of ranks."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from dmoe.errors import UserError

KERNELS = {"fused_uvm": "uvm", "fused_uvm_caching": "caching"}
BINS = 8


def kernel_word(kernel: str) -> str:
    return KERNELS.get(kernel, kernel)


def bar(parts: Sequence[tuple[float, str]], whole: float, width: int, rest: str) -> str:
    """A bar of `width` characters with the parts of a whole; each part above 0 gets at least one mark if there is room."""
    text = ""
    for value, mark in parts:
        text += mark * max(round(width * value / whole) if whole else 0, 1 if value > 0 else 0)
    return f"{text[:width]:{rest}<{width}}"


def histogram(title: str, values: Sequence[float], word: Callable[[float], str]) -> list[str]:
    """A histogram with BINS equal bins from the minimum to the maximum, 47 columns wide."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(high), 1.0):
        return [f"{title}: {word(low)} on all {len(values):,} ranks"]
    step = (high - low) / BINS
    counts = [0] * BINS
    for value in values:
        counts[min(int((value - low) / step), BINS - 1)] += 1
    lines = [f"{title}, ranks"]
    for number, count in enumerate(counts):
        to = low + step * (number + 1)
        lines.append(f"  to {word(to):>12} {count:>6,}  {bar(((count, '#'),), max(counts), 20, ' ')}".rstrip())
    return lines


def compact(ranks: Sequence[int], total: int, width: int) -> str:
    """A list of ranks in `width` columns: `all`, `0-7, 12`, or the count and range, such as `9 in 0-63`."""
    if len(ranks) == total:
        return "all"[: max(width, 3)]
    if not ranks:
        return "-"
    whole = ", ".join(str(a) if a == b else f"{a}-{b}" if b > a + 1 else f"{a}, {b}" for a, b in _runs(ranks))
    choices = [whole, f"{len(ranks)} in {ranks[0]}-{ranks[-1]}", f"{len(ranks)} ranks"]
    return next((text for text in choices if len(text) <= width), str(len(ranks)))


def spans(ranks: Sequence[int]) -> str:
    """Formats sorted ranks as `0-7,12`."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in _runs(ranks))


def _runs(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of each stretch of sorted ranks."""
    held = np.asarray(ranks, int)
    starts = np.flatnonzero(np.diff(held, prepend=-2) != 1)
    return list(zip(held[starts].tolist(), held[np.append(starts[1:], len(held)) - 1].tolist(), strict=True)) if len(held) else []


def ranks_in(text: str, total: int) -> list[int]:
    """Parses `0-7,12` or `all` into sorted ranks.

    Raises:
        UserError: another format, or a rank that does not exist.
    """
    if text == "all":
        return list(range(total))
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"--ranks {text}: expected such as 0-7,12 or all")
        if int(match[2] or match[1]) >= total:
            raise UserError(f"--ranks {text}: rank {match[2] or match[1]}, but the plan has ranks 0 to {total - 1}")
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(found)


def over_bound(bound_ms: float, time_ms: float) -> str:
    """Text that says how far the critical rank's time is above the best possible time, at most.

    Args:
        bound_ms: lower bound stored in the plan; 0 if there is none.

    Returns:
        Empty if there is no bound, or the time is below it: the file was edited, so the bound belongs to another cluster or batch size.
    """
    if not 0 < bound_ms <= time_ms * (1 + 1e-6):
        return ""
    # Rounded up, since the text says "at most".
    return f"at most {math.ceil(max(time_ms / bound_ms - 1, 0.0) * 1000 - 1e-3) / 1000:.1%} above a lower bound"
