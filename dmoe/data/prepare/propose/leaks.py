"""Finds columns that leak the label: columns that are written after the click, such as the time of a purchase, or copies of the label.

Shapes: N sampled rows.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.encode.labels import LABELS
from dmoe.data.prepare.propose.label import Chosen

ENOUGH = 20
"""Least rows of each label, and average rows of each value. With fewer, agreement with the label may be chance."""


def tellers(columns: pa.Table, chosen: Chosen) -> dict[str, str]:
    """The columns whose value, or whose being present, determines the label, with the reason why each is left out."""
    label = columns[chosen.column]
    ones = [chosen.positive] if chosen.positive is not None else [text.decode() for text, one in LABELS.items() if one]
    label_N = _to_numpy(pc.is_in(label, pa.array(ones, label.type)))
    if min(label_N.sum(), (~label_N).sum()) < ENOUGH:
        return {}
    found: dict[str, str] = {}
    for name in columns.column_names:
        if name == chosen.column:
            continue
        one = columns[name]
        missing_N = _missing(one)
        if bool((missing_N == label_N).all()) or bool((missing_N != label_N).all()):
            found[name] = "it has a value where the label is one of the two, and none where it is the other: is it written after the click?"
        elif not pa.types.is_large_list(one.type) and _is_function(one, label_N):
            found[name] = "each of its values has one label alone: is it written after the click?"
    return found


def _missing(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    if pa.types.is_large_list(column.type):
        return _to_numpy(pc.equal(pc.fill_null(pc.list_value_length(column), 0), 0))
    return _to_numpy(column.is_null() if pa.types.is_timestamp(column.type) else pc.equal(pc.fill_null(column, ""), ""))


def _is_function(column: pa.ChunkedArray, label_N: NDArray[np.bool_]) -> bool:
    """Whether the column has few distinct values, and each of them occurs with one label only."""
    coded = column.combine_chunks().dictionary_encode("encode")
    sizes = len(coded.dictionary)
    if not 2 <= sizes <= len(label_N) // ENOUGH:
        return False
    codes = coded.indices.to_numpy(zero_copy_only=False)
    rows, ones = np.bincount(codes, minlength=sizes), np.bincount(codes, label_N, minlength=sizes)
    return bool(((ones == 0) | (ones == rows)).all())


def _to_numpy(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(column, False).to_numpy()).astype(bool)
