"""Recognises tokens that are whole numbers: `1007`, `1007.0` and `1.007e+3` are one number, written by different programs.

Shapes: n tokens.
"""

import numpy as np
from numpy.typing import NDArray

from dmoe.processes.compiled import compiled

LARGEST = 1 << 53
"""Up to 2^53 float64 distinguishes all integers. A larger integer may have changed if it was stored as float64."""
LONGEST = 64
"""Longer tokens, in bytes, are not parsed."""
NO, WHOLE, LARGE = 0, 1, 2
"""A token is no whole number, a whole number, or a whole number above LARGEST."""
NO_EXPONENT = -10_000


@compiled
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


@compiled
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


@compiled
def _parse_all(data: NDArray[np.uint8], offsets: NDArray[np.int64], kind: NDArray[np.uint8], number: NDArray[np.int64]) -> bool:
    """Sets kind[i] and number[i]; returns whether every token is plain."""
    plain = True
    for i in range(len(kind)):
        plain = plain and _is_plain(data, offsets[i], offsets[i + 1])
        kind[i], number[i] = _parse(data, offsets[i], offsets[i + 1])
    return plain


@compiled
def _is_plain(data: NDArray[np.uint8], at: int, end: int) -> bool:
    """Whether a token is the usual text of an integer: 0, or digits that do not begin with 0, perhaps after a minus sign."""
    if end - at == 1 and data[at] == ord("0"):
        return True
    at += at < end and data[at] == ord("-")
    if at == end or data[at] == ord("0"):
        return False
    while at < end and ord("0") <= data[at] <= ord("9"):
        at += 1
    return at == end


@compiled
def _look_up(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    all_plain: bool,
    numbers: NDArray[np.int64],
    ids: NDArray[np.int32],
    unknown: int,
    out: NDArray[np.int32],
) -> None:
    for i in range(len(out)):
        at, end = offsets[i], offsets[i + 1]
        if out[i] != unknown or (all_plain and _is_plain(data, at, end)):
            continue
        kind, number = _parse(data, at, end)
        place = np.searchsorted(numbers, number)
        if kind == WHOLE and place < len(numbers) and numbers[place] == number:
            out[i] = ids[place]


@compiled
def _are_all(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> bool:
    at, kind = 0, WHOLE
    while at < len(offsets) - 1 and kind != NO:
        kind, _ = _parse(data, offsets[at], offsets[at + 1])
        at += 1
    return kind != NO


def whole_numbers(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64], bool]:
    """Parses tokens: (NO, WHOLE or LARGE [n]; the number [n] if it is WHOLE; whether every token is the usual text of an integer).

    A whole number is a decimal number without a fraction, leading zeros or a plus sign.
    """
    kind, number = np.zeros(len(offsets) - 1, np.uint8), np.zeros(len(offsets) - 1, np.int64)
    return kind, number, _parse_all(data, offsets, kind, number)


class NumberIds:
    """Map number -> id of a vocabulary whose tokens are all whole numbers, without two tokens for one number.

    Attributes:
        numbers: ascending; empty if the vocabulary has other tokens, or two for one number.
        all_plain: every token is the usual text of an integer. An unknown token that is such a text too then has no id.
        twice: how many tokens of a vocabulary of whole numbers write a number that another token writes too.
    """

    def __init__(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], first_id: int) -> None:
        self.numbers, self.ids, self.all_plain, self.twice = np.zeros(0, np.int64), np.zeros(0, np.int32), False, 0
        if len(offsets) == 1 or not _are_all(data, offsets):
            return
        kind, number, self.all_plain = whole_numbers(data, offsets)
        place = np.flatnonzero(kind == WHOLE)
        place = place[np.argsort(number[place], kind="stable")]
        self.twice = int((np.diff(number[place]) == 0).sum())
        if not self.twice:
            self.numbers, self.ids = number[place], (place + first_id).astype(np.int32)

    def look_up(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], out: NDArray[np.int32], unknown: int) -> None:
        """Replaces `unknown` in `out` [n] by the id of the token's number, if the vocabulary has that number."""
        if len(self.numbers):
            _look_up(data, offsets, self.all_plain, self.numbers, self.ids, unknown, out)
