"""Recognises tokens that are whole numbers: `1007`, `1007.0` and `1.007e+3` are one number, written by different programs.

A whole number is a decimal number without a fraction, leading zeros or a plus sign, in at most LONGEST bytes. Without a decimal point its
exponent has a sign, since `1e5` may be hexadecimal.

Shapes: n tokens.
"""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.spans import buffers
from dmoe.processes.compiled import compiled

LARGEST = 1 << 53
"""Up to 2^53 float64 distinguishes all integers. A larger integer may have changed if it was stored as float64."""
LONGEST = 64
PLAIN = "^(0|-?[1-9][0-9]*)$"
"""The usual text of an integer: two different texts are two different numbers."""
DECIMAL = r"^-?(0|[1-9][0-9]*)(\.[0-9]*([eE][+-]?[0-9]{1,3})?|[eE][+-][0-9]{1,3})?$"
SHORT = "^[^eE]{1,15}([eE][+-]?[0-9]{1,2})?$"
"""Different decimal numbers of at most 15 digits are different as float64."""


def matching(tokens: pa.Array, pattern: str) -> NDArray[np.bool_]:
    """Whether each token matches the pattern [n]."""
    return np.asarray(pc.match_substring_regex(tokens, pattern).to_numpy(zero_copy_only=False), bool)


@compiled
def may_match(data: NDArray[np.uint8], first_n: NDArray[np.int64], end_n: NDArray[np.int64], plain: bool, out_n: NDArray[np.bool_]) -> None:
    """Clears `out_n` for tokens that cannot match DECIMAL. A few bytes decide this for most texts, which is faster than the pattern.

    Args:
        first_n, end_n: the token is data[first:end]; if the end is -1, the token is an integer.
        plain: whether tokens may be plain; else those that can only be plain are cleared too.
    """
    for i in range(len(out_n)):
        at, end = first_n[i], end_n[i]
        if end == -1 or not out_n[i]:
            out_n[i] &= plain
            continue
        if end == at or data[at] > ord("9") or data[end - 1] > ord("9") or (data[at] < ord("0") and data[at] != ord("-")):
            out_n[i] = False
            continue
        # -0 is not plain either.
        other = plain or (end == at + 2 and data[at] == ord("-") and data[at + 1] == ord("0"))
        for place in range(at + 1, end):
            other |= data[place] < ord("0")
        out_n[i] = other


def like_numbers(tokens: pa.Array, chosen_n: NDArray[np.bool_], plain: bool = True) -> NDArray[np.int64]:
    """The places of those chosen tokens that match DECIMAL; changes `chosen_n`.

    Args:
        plain: whether plain tokens count.
    """
    data, edges = buffers(tokens)
    may_match(data, edges[:-1], edges[1:], plain, chosen_n)
    place = np.flatnonzero(chosen_n)
    return place[matching(tokens.take(pa.array(place)), DECIMAL)] if len(place) else place


def whole_numbers(tokens: pa.Array) -> NDArray[np.float64]:
    """The number that each token is [n]: inf if it is above LARGEST, NaN if the token is no whole number."""
    number_n = np.full(len(tokens), np.nan)
    place = np.flatnonzero(matching(tokens, DECIMAL) & (pc.binary_length(tokens).to_numpy() <= LONGEST))
    texts = tokens.take(pa.array(place)).cast(pa.large_string())
    short = matching(texts, SHORT)
    number_n[place[short]] = texts.filter(pa.array(short)).cast(pa.float64()).to_numpy()
    number_n[place[~short]] = [_exactly(text) for text in texts.filter(pa.array(~short)).to_pylist()]
    number_n[number_n != np.floor(number_n)] = np.nan
    number_n[np.abs(number_n) > LARGEST] = np.inf
    return number_n


def _exactly(text: str) -> float:
    number = Decimal(text)
    if number != number.to_integral_value():
        return np.nan
    return float(number) if abs(number) <= LARGEST else np.inf


class NumberIds:
    """Map number -> id, of the tokens of a vocabulary that are whole numbers. A number that two tokens write is left out.

    Attributes:
        numbers: ascending.
        all_plain: all these tokens are plain. An unknown token that is plain too then has no id.
        twice: how many tokens of a vocabulary that has only whole numbers write a number that another token writes too.
    """

    def __init__(self, tokens: pa.Array, first_id: int) -> None:
        place = like_numbers(tokens, np.ones(len(tokens), np.bool_))
        found = tokens.take(pa.array(place))
        number = whole_numbers(found)
        # NaN and infinity are not equal to their neighbours here: they are sorted to the end, and left out.
        order = np.argsort(number)[: np.isfinite(number).sum()]
        same = np.diff(number[order]) == 0
        self.twice = int(same.sum()) if len(place) == len(tokens) and not np.isnan(number).any() else 0
        alone = order[~(np.append(False, same) | np.append(same, False))] if len(order) else order
        self.numbers, self.ids = number[alone], (place[alone] + first_id).astype(np.int32)
        self.all_plain = bool(matching(found.take(pa.array(alone)), PLAIN).all())

    def look_up(self, tokens: pa.Array, out: NDArray[np.int32], unknown: int) -> None:
        """Replaces `unknown` in `out` [n] by the id of the token's number, if the vocabulary has that number."""
        place = like_numbers(tokens, out == unknown, not self.all_plain) if len(self.numbers) else np.zeros(0, np.int64)
        if not len(place):
            return
        number = whole_numbers(tokens.take(pa.array(place)))
        at = np.minimum(np.searchsorted(self.numbers, number), len(self.numbers) - 1)
        found = self.numbers[at] == number
        out[place[found]] = self.ids[at[found]]
