"""Recognises tokens that are whole numbers: `1007`, `1007.0` and `1.007e+3` are one number, written by different programs.

Shapes: n tokens.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

LARGEST = 1 << 53
"""Up to 2^53 float64 distinguishes all integers. A larger integer may have changed if it was stored as float64."""
LONGEST = 64
"""Longer tokens, in bytes, are not parsed."""
NO, WHOLE, LARGE = 0, 1, 2
"""A token is no whole number, a whole number, or a whole number above LARGEST."""
NO_EXPONENT = -10_000


@njit(nogil=True, cache=True)
def _exponent(data: NDArray[np.uint8], at: int, end: int, dotted: bool) -> int:
    """The exponent after an `e`; NO_EXPONENT if there is none. Without a decimal point a sign is required, since `1e5` may be
    hexadecimal."""
    if at == end or not (dotted or data[at] == ord("+") or data[at] == ord("-")):
        return NO_EXPONENT
    negative = data[at] == ord("-")
    at += data[at] == ord("+") or data[at] == ord("-")
    if at == end or end - at > 3:
        return NO_EXPONENT
    exponent = 0
    for place in range(at, end):
        if not ord("0") <= data[place] <= ord("9"):
            return NO_EXPONENT
        exponent = 10 * exponent + data[place] - ord("0")
    return -exponent if negative else exponent


@njit(nogil=True, cache=True)
def _parse(data: NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """Parses a token: (NO, WHOLE or LARGE; the number)."""
    if end - at > LONGEST:
        return NO, 0
    negative = at < end and data[at] == ord("-")
    at += negative
    first, point = at, -1
    digits, zeros, large = 0, 0, False
    while at < end:
        if ord("0") <= data[at] <= ord("9"):
            if data[at] == ord("0"):
                # Zeros are counted and applied when another digit follows. Zeros at the end are a power of ten.
                zeros += 1
            else:
                for _ in range(zeros + 1):
                    digits *= 10
                    large = large or digits > LARGEST
                    digits = min(digits, LARGEST)
                digits, zeros = digits + data[at] - ord("0"), 0
                large = large or digits > LARGEST
        elif data[at] == ord(".") and point < 0:
            point = at
        else:
            break
        at += 1
    whole_end = at if point < 0 else point
    if whole_end == first or (data[first] == ord("0") and whole_end > first + 1):
        return NO, 0
    power = zeros - (at - point - 1 if point >= 0 else 0)
    if at < end:
        if data[at] != ord("e") and data[at] != ord("E"):
            return NO, 0
        exponent = _exponent(data, at + 1, end, point >= 0)
        if exponent == NO_EXPONENT:
            return NO, 0
        power += exponent
    if digits == 0 and not large:
        return WHOLE, 0
    if power < 0:
        return NO, 0
    for _ in range(power):
        digits *= 10
        large = large or digits > LARGEST
        if large:
            return LARGE, 0
    if large:
        return LARGE, 0
    return WHOLE, -digits if negative else digits


@njit(nogil=True, cache=True)
def _parse_all(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], which: NDArray[np.bool_], kind: NDArray[np.uint8], number: NDArray[np.int64]
) -> None:
    for i in range(len(kind)):
        if which[i]:
            kind[i], number[i] = _parse(data, offsets[i], offsets[i + 1])


@njit(nogil=True, cache=True)
def _are_all(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> bool:
    at, kind = 0, WHOLE
    while at < len(offsets) - 1 and kind != NO:
        kind, _ = _parse(data, offsets[at], offsets[at + 1])
        at += 1
    return kind != NO


def whole_numbers(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], which: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Parses the tokens that are selected by `which` [n]: (NO, WHOLE or LARGE [n]; the number [n] if it is WHOLE). NO for the others.

    A whole number is a decimal number without a fraction, leading zeros or a plus sign.
    """
    kind, number = np.zeros(len(which), np.uint8), np.zeros(len(which), np.int64)
    _parse_all(data, offsets, which, kind, number)
    return kind, number


class NumberIds:
    """Map number -> id of a vocabulary whose tokens are all whole numbers, without two tokens for one number.

    Attributes:
        numbers: ascending; empty if the vocabulary has other tokens, or two for one number.
    """

    def __init__(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], first_id: int) -> None:
        self.numbers, self.ids = np.zeros(0, np.int64), np.zeros(0, np.int32)
        if len(offsets) == 1 or not _are_all(data, offsets):
            return
        kind, number = whole_numbers(data, offsets, np.ones(len(offsets) - 1, bool))
        place = np.flatnonzero(kind == WHOLE)
        place = place[np.argsort(number[place], kind="stable")]
        if (np.diff(number[place]) > 0).all():
            self.numbers, self.ids = number[place], (place + first_id).astype(np.int32)

    def look_up(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], out: NDArray[np.int32], unknown: int) -> None:
        """Replaces `unknown` in `out` [n] by the id of the token's number, if the vocabulary has that number."""
        if not len(self.numbers):
            return
        kind, number = whole_numbers(data, offsets, out == unknown)
        place = np.minimum(np.searchsorted(self.numbers, number), len(self.numbers) - 1)
        found = (kind == WHOLE) & (self.numbers[place] == number)
        out[found] = self.ids[place[found]]
