"""Dictionary-encoded columns, as the intermediate parts hold them.

Shapes: N rows, T tokens of all rows, V distinct values.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import MISSING_ID

EXPECTED = {
    "string": "text",
    "hex": "1 to 8 hex digits",
    "int": "an integer of 64 bits",
    "number": "an integer of 32 bits",
}
TYPES = {"string": pa.large_binary(), "hex": pa.uint32(), "int": pa.int64(), "number": pa.int32()}
PATTERNS = {"hex": "^[0-9a-fA-F]{1,8}$", "int": "^-?[0-9]+$", "number": "^-?[0-9]+$"}
INTEGER_LIMIT = 2**31 - 1
SMALL = 1 << 16


@dataclass(frozen=True)
class Coded:
    """A dictionary-encoded column.

    Attributes:
        codes: [N], or [T] for a multi-valued column. Code c > 0 stands for values[c - 1]; code 0 is missing.
        values: pyarrow Array [V] of large_binary, uint32, int32 or int64. It may hold a value twice.
        lengths: [N] number of tokens of each row, for a multi-valued column.
    """

    codes: NDArray[Any]
    values: pa.Array
    lengths: NDArray[np.int64] | None = None

    def of_rows(self, chosen_N: NDArray[Any]) -> NDArray[Any]:
        """Expands a value for each row [N] to one for each token [T]."""
        return chosen_N if self.lengths is None else np.repeat(chosen_N, self.lengths)


def read_coded(column: pa.Array) -> Coded:
    """Reads a column of a part."""
    lengths = None
    if pa.types.is_large_list(column.type):
        lengths = pc.list_value_length(column).to_numpy().astype(np.int64)
        column = column.flatten()
    return Coded(column.indices.to_numpy(), column.dictionary.slice(1), lengths)


def bags_of_ids(lengths: NDArray[np.int64], id_T: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(ids, offsets [N + 1]) of rows with the given numbers of ids. A row without a token gets MISSING_ID."""
    full_N = np.maximum(lengths, 1)
    offsets = np.concatenate([[0], np.cumsum(full_N)])
    values = np.full(offsets[-1], MISSING_ID, np.int32)
    values[np.repeat(lengths > 0, full_N)] = id_T
    return values, offsets


def coded_as(texts: pa.DictionaryArray, kind: str) -> tuple[pa.DictionaryArray, NDArray[np.bool_]]:
    """Converts encoded texts to encoded values of type `kind`.

    Returns:
        The encoded values, with null as value 0; and whether the text of each row is malformed [N].
    """
    # Code 0 is null, so the code of text v is v + 1.
    codes = (pc.fill_null(texts.indices, -1) if texts.null_count else texts.indices).to_numpy() + np.int32(1)
    bad = np.zeros(len(codes), bool)
    if kind == "string":
        values = texts.dictionary.cast(pa.large_binary())
    else:
        values, place_of, bad_of = _typed(texts.dictionary, kind)
        bad = np.append(False, bad_of)[codes] if bad_of.any() else bad
        codes = np.append(0, place_of + 1)[codes]
    codes = codes.astype(np.uint16 if len(values) < SMALL else np.int32, copy=False)
    dictionary = pa.concat_arrays([pa.nulls(1, values.type), values])
    return pa.DictionaryArray.from_arrays(pa.array(codes), dictionary, safe=False), bad


def _typed(texts: pa.Array, kind: str) -> tuple[pa.Array, NDArray[np.int64], NDArray[np.bool_]]:
    """(distinct values; for each text the index of its value, -1 if it has none; whether each text is malformed)."""
    numbers, bad = _numbers(texts, kind)
    distinct, place = np.unique(numbers[~bad], return_inverse=True)
    place_of = np.full(len(texts), -1)
    place_of[~bad] = place.reshape(-1)
    return pa.array(distinct.astype(TYPES[kind].to_pandas_dtype())), place_of, bad


def _numbers(texts: pa.Array, kind: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(numbers, 0 if malformed; whether each text is malformed)."""
    good = pc.match_substring_regex(texts, PATTERNS[kind]).to_numpy(zero_copy_only=False)
    if kind == "hex":
        found = [int(text, 16) if ok else 0 for text, ok in zip(texts.to_pylist(), good, strict=True)]
        return np.array(found, np.int64), ~good
    limit = 2**63 - 1 if kind == "int" else INTEGER_LIMIT
    whole = [int(text) if ok and len(text) < 4000 else limit + 1 for text, ok in zip(texts.to_pylist(), good, strict=True)]
    bad = np.array([abs(number) > limit for number in whole], bool)
    return np.array([0 if wrong else number for number, wrong in zip(whole, bad, strict=True)], np.int64), bad
