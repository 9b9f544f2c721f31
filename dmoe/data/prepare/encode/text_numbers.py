"""Parses texts as float64: by compiled code when that is exact, otherwise by Arrow.

Shapes: N texts.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.texts import Texts, is_missing
from dmoe.processes.compiled import compiled

NONE, NUMBER, OTHER = 0, 1, 2
"""Result of `numbers` for a text: no value, a number, or a text that needs the full parser."""
EXACT_DIGITS, EXACT_POWER = 1 << 53, 22
"""Integers up to 2^53 and powers of ten up to 10^22 are exact in float64, so their product or quotient is rounded only once (Clinger
1990)."""
POWERS = np.array([float(f"1e{power}") for power in range(EXACT_POWER + 1)])


@compiled
def _numbers(
    text: NDArray[np.uint8],
    first: NDArray[np.int32],
    end: NDArray[np.int32],
    missing: Texts,
    powers: NDArray[np.float64],
    value: NDArray[np.float64],
    found: NDArray[np.uint8],
) -> None:
    """Parses [+-] digits [. digits] [e [+-] digits] if the result is exact."""
    none, edges = missing
    for i in range(len(first)):
        at, stop = np.int64(first[i]), np.int64(end[i])
        value[i] = 0.0
        if is_missing(text, at, stop, none, edges):
            found[i] = NONE
            continue
        found[i] = OTHER
        negative = text[at] == 45
        at += negative or text[at] == 43
        digits, power, seen, point = np.int64(0), np.int64(0), 0, False
        while at < stop and digits <= EXACT_DIGITS:
            byte = text[at]
            if 48 <= byte <= 57:
                digits = 10 * digits + np.int64(byte - 48)
                seen += 1
                power -= point
            elif byte == 46 and not point:
                point = True
            else:
                break
            at += 1
        if seen == 0 or digits > EXACT_DIGITS:
            continue
        if at < stop:
            if text[at] != 101 and text[at] != 69:
                continue
            at += 1
            less = at < stop and text[at] == 45
            at += less or (at < stop and text[at] == 43)
            if at == stop or stop - at > 4:
                continue
            exponent = np.int64(0)
            while at < stop and 48 <= text[at] <= 57:
                exponent = 10 * exponent + np.int64(text[at] - 48)
                at += 1
            if at < stop:
                continue
            power += -exponent if less else exponent
        if digits != 0 and abs(power) > EXACT_POWER:
            continue
        number = np.float64(digits)
        if digits != 0:
            number = number * powers[power] if power >= 0 else number / powers[-power]
        value[i] = -number if negative else number
        found[i] = NUMBER


def numbers(
    text: NDArray[np.uint8], first: NDArray[np.int32], end: NDArray[np.int32], missing: Texts
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """(values [N], 0.0 if there is none; NONE, NUMBER or OTHER [N]). The values are correctly rounded, as those of a full parser."""
    value, found = np.empty(len(first)), np.empty(len(first), np.uint8)
    _numbers(text, first, end, missing, POWERS, value, found)
    return value, found


def to_float(column: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(values [N], 0.0 if there is none; whether each is a finite number [N]). Integers are rounded to float64."""
    try:
        value_N = pc.fill_null(column.cast(pa.float64(), safe=not pa.types.is_integer(column.type)), np.nan).to_numpy()
    except pa.ArrowInvalid:
        coded = column.dictionary_encode()
        codes = pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy()
        value_N = np.append(_each(coded.dictionary), np.nan)[codes]
    ok_N = np.isfinite(value_N)
    return np.where(ok_N, value_N, 0.0), ok_N


def _each(texts: pa.Array) -> NDArray[np.float64]:
    """The texts as float64; NaN for a text that is no number."""
    try:
        return np.asarray(texts.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return np.full(1, np.nan)
        half = len(texts) // 2
        return np.concatenate([_each(texts[:half]), _each(texts[half:])])
