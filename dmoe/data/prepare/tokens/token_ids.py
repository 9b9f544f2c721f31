"""Hashes of tokens, and hash tables from token to id. They need no Python objects for tokens, and release the GIL.

Tables use open addressing with linear probing and are at most half full. In a table of byte strings, a slot holds the number of a token
(0 if free), whose bytes are compared.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.prepare.split.split_rules import GOLDEN, splitmix64
from dmoe.data.prepare.tokens import kernels
from dmoe.data.prepare.tokens.byte_words import fetch_ahead, fill_slots, hash_spans, mixed, same_bytes
from dmoe.data.prepare.tokens.spans import buffers
from dmoe.data.prepare.tokens.texts import Texts
from dmoe.data.prepare.tokens.whole_numbers import NumberIds
from dmoe.processes.compiled import compiled


@compiled
def text_hash(data: NDArray[np.uint8], at: int, end: int) -> np.uint64:
    """FNV-1a (Fowler, Noll, Vo) of a span, then the finalizer of splitmix64, since the low bits of FNV are weak."""
    x = np.uint64(0xCBF29CE484222325)
    for place in range(at, end):
        x = (x ^ np.uint64(data[place])) * np.uint64(0x100000001B3)
    return mixed(x)


@compiled
def _hash_all(data: NDArray[np.uint8], offsets: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    for i in range(len(out)):
        out[i] = text_hash(data, offsets[i], offsets[i + 1])


def hashes(tokens: pa.Array) -> NDArray[np.uint64]:
    """A 64-bit hash of each token [n], the same on every machine.

    An integer is hashed as splitmix64(token + golden ratio). An integer that fits into 32 bits is first reduced to its 32 bits. Different
    integers have different hashes, except for a negative int32 and the uint32 with the same bits, such as -1 and 2^32 - 1.
    """
    if pa.types.is_large_binary(tokens.type):
        out = np.empty(len(tokens), np.uint64)
        _hash_all(*buffers(tokens), out)
        return out
    number = tokens.to_numpy()
    bits = number.astype(np.uint64)
    if number.dtype == np.int64:
        bits = np.where(number == number.astype(np.int32), bits & np.uint64(0xFFFFFFFF), bits)
    return splitmix64(bits + GOLDEN)


@compiled
def _look_up(
    slots: NDArray[np.int32],
    known_hash: NDArray[np.uint64],
    known: Texts,
    tokens: Texts,
    hashes: NDArray[np.uint64],
    rare: int,
    out: NDArray[np.int32],
) -> None:
    known_data, known_edges = known
    data, edges = tokens
    mask = np.uint64(len(slots) - 1)
    for i in range(len(out)):
        fetch_ahead(hashes, i, slots, known_hash, known_edges)
        out[i] = rare
        at = edges[i]
        size = edges[i + 1] - at
        h = hashes[i]
        slot = h & mask
        while slots[slot] != 0:
            j = slots[slot] - 1
            there = known_edges[j]
            same = known_hash[j] == h and known_edges[j + 1] - there == size
            if same and (size <= 8 or same_bytes(known_data, there, data, at, size)):
                out[i] = rare + 1 + j
                break
            slot = (slot + np.uint64(1)) & mask


class TokenIds:
    """Map token -> id of a vocabulary of texts: token j has id 2 + j, an unknown token has RARE_ID.

    An unknown token that is a whole number is also looked up by its number: a program that writes 1007 as 1007.0 must not make all rows
    unknown.
    """

    def __init__(self, tokens: pa.Array) -> None:
        self.data, self.offsets = buffers(tokens)
        self.hashes = np.empty(len(tokens), np.uint64)
        self.slots = np.zeros(1 << (2 * len(tokens) + 1).bit_length(), np.int32)
        hash_spans(self.data, self.offsets, self.hashes)
        fill_slots(self.slots, self.hashes)
        self.numbers = NumberIds(tokens, RARE_ID + 1)

    def look_up(self, tokens: pa.Array) -> NDArray[np.int32]:
        """The id of each token, [n]."""
        out = self.of_text(tokens)
        self.numbers.look_up(tokens, out, RARE_ID)
        return out

    def of_text(self, tokens: pa.Array) -> NDArray[np.int32]:
        """The id of each token by its text alone, [n]."""
        out, hashed = np.empty(len(tokens), np.int32), np.empty(len(tokens), np.uint64)
        sought = buffers(tokens)
        hash_spans(*sought, hashed)
        _look_up(self.slots, self.hashes, Texts(self.data, self.offsets), sought, hashed, RARE_ID, out)
        return out

    def token(self, id: int) -> bytes:
        """The token that has an id from 2 on."""
        place = id - RARE_ID - 1
        return self.data[self.offsets[place] : self.offsets[place + 1]].tobytes()


class IntegerIds:
    """As TokenIds, for hex (uint32) or integer (int64) tokens."""

    def __init__(self, tokens: NDArray[Any]) -> None:
        slots = 1 << (2 * len(tokens) + 1).bit_length()
        self.keys, self.ids = np.zeros(slots, tokens.dtype), np.zeros(slots, np.int32)
        kernels.fill_ids(self.keys, self.ids, tokens, RARE_ID + 1)

    def look_up(self, tokens: pa.Array) -> NDArray[np.int32]:
        out = np.empty(len(tokens), np.int32)
        kernels.look_up(self.keys, self.ids, tokens.to_numpy(), RARE_ID, out)
        return out


class HashedIds:
    """Hashed ids, which need no vocabulary: id = 2 + hash mod (size - 2). Id 0 is missing; id 1 (rare) is not used."""

    def __init__(self, size: int) -> None:
        self.size = size

    def look_up(self, tokens: pa.Array) -> NDArray[np.int32]:
        return (RARE_ID + 1 + (hashes(tokens) % np.uint64(self.size - RARE_ID - 1)).astype(np.int64)).astype(np.int32)


Ids = TokenIds | IntegerIds | HashedIds
"""Map token -> id of a feature. Read-only, shared by threads."""
