"""Finds columns that leak the label: columns that are written after the click, such as the time of a purchase, or copies of the label.

Shapes: N sampled rows.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.encode.labels import LABELS
from dmoe.data.prepare.propose.label import Chosen
from dmoe.data.prepare.propose.sample import Column

ENOUGH = 20
"""Least rows of each label, and average rows of each value. With fewer, agreement with the label may be chance."""


def tellers(columns: Sequence[Column], chosen: Chosen) -> dict[str, str]:
    """The columns whose value, or whose being present, determines the label, with the reason why each is left out."""
    (label,) = (one for one in columns if one.name == chosen.column)
    ones = [chosen.positive] if chosen.positive is not None else [text.decode() for text, one in LABELS.items() if one]
    label_N = _to_numpy(pc.is_in(label.values, pa.array(ones, label.values.type)))
    if min(label_N.sum(), (~label_N).sum()) < ENOUGH:
        return {}
    found: dict[str, str] = {}
    for one in columns:
        if one is label or one.unread:
            continue
        missing_N = _missing(one)
        if bool((missing_N == label_N).all()) or bool((missing_N != label_N).all()):
            found[one.name] = (
                "it has a value where the label is one of the two, and none where it is the other: is it written after the click?"
            )
        elif one.lengths is None and _is_function(one, label_N):
            found[one.name] = "each of its values has one label alone: is it written after the click?"
    return found


def _missing(one: Column) -> NDArray[np.bool_]:
    if one.lengths is not None:
        return one.lengths == 0
    if pa.types.is_timestamp(one.values.type):
        return _to_numpy(one.values.is_null())
    return _to_numpy(pc.equal(pc.fill_null(one.values, ""), ""))


def _is_function(one: Column, label_N: NDArray[np.bool_]) -> bool:
    """Whether the column has few distinct values, and each of them occurs with one label only."""
    coded = pa.chunked_array(one.values.chunks, one.values.type).combine_chunks().dictionary_encode("encode")
    sizes = len(coded.dictionary)
    if not 2 <= sizes <= len(label_N) // ENOUGH:
        return False
    codes = coded.indices.to_numpy(zero_copy_only=False)
    rows, ones = np.bincount(codes, minlength=sizes), np.bincount(codes, label_N, minlength=sizes)
    return bool(((ones == 0) | (ones == rows)).all())


def _to_numpy(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(column, False).to_numpy()).astype(bool)
