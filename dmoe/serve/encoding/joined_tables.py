"""The look-up tables of several features in one array each, so that a compiled function takes all of them as a few arguments.

The tables of the features become views of these arrays: nothing is held twice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.token_ids import IntegerIds, TokenIds


class Numbers(NamedTuple):
    """Tables of `IntegerIds`. The slots of table i begin at low[i]."""

    keys: NDArray[Any]
    ids: NDArray[np.int32]
    low: list[int]


class Texts(NamedTuple):
    """Tables of `TokenIds`. The slots of table i begin at low[i], its hashes at token[i], and its offsets at token[i] + i."""

    slots: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    low: list[int]
    token: list[int]


def join_numbers(tables: Sequence[IntegerIds], dtype: Any) -> Numbers:
    """Joins tables of tokens of one dtype."""
    edges = _edges(tables, "keys")
    keys, ids = _together([one.keys for one in tables], dtype), _together([one.ids for one in tables], np.int32)
    for one, low, high in zip(tables, edges[:-1], edges[1:], strict=True):
        one.keys, one.ids = keys[low:high], ids[low:high]
    return Numbers(keys, ids, edges[:-1])


def join_texts(tables: Sequence[TokenIds]) -> Texts:
    slots, hashes = _together([one.slots for one in tables], np.int32), _together([one.hashes for one in tables], np.uint64)
    # The bytes of a table may be a part of a longer buffer.
    data = [one.data[one.offsets[0] : one.offsets[-1]] for one in tables]
    begins = np.cumsum([0, *map(len, data)])
    moved = [one.offsets - one.offsets[0] + begin for one, begin in zip(tables, begins[:-1], strict=True)]
    known, offsets = _together(data, np.uint8), _together(moved, np.int64)
    low, token = _edges(tables, "slots"), _edges(tables, "hashes")
    for number, one in enumerate(tables):
        one.slots, one.hashes, one.data = slots[low[number] : low[number + 1]], hashes[token[number] : token[number + 1]], known
        one.offsets = offsets[token[number] + number : token[number + 1] + number + 1]
    return Texts(slots, hashes, known, offsets, low[:-1], token[:-1])


def _edges(tables: Sequence[Any], name: str) -> list[int]:
    found: list[int] = np.cumsum([0, *(len(getattr(one, name)) for one in tables)]).tolist()
    return found


def _together(parts: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
