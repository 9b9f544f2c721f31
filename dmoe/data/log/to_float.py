"""Text as numbers, in full: whatever Arrow reads as a float64."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def to_float(column: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(values [N], 0.0 where there is none; whether each is a finite number [N]). Integers are rounded as their texts are."""
    try:
        value_N = pc.fill_null(column.cast(pa.float64(), safe=not pa.types.is_integer(column.type)), np.nan).to_numpy()
    except pa.ArrowInvalid:
        coded = column.dictionary_encode()
        codes = pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy()
        value_N = np.append(_each(coded.dictionary), np.nan)[codes]
    ok_N = np.isfinite(value_N)
    return np.where(ok_N, value_N, 0.0), ok_N


def _each(texts: pa.Array) -> NDArray[np.float64]:
    """NaN where one cannot be read."""
    try:
        return np.asarray(texts.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return np.full(1, np.nan)
        half = len(texts) // 2
        return np.concatenate([_each(texts[:half]), _each(texts[half:])])
