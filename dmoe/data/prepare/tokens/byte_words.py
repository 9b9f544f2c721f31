"""Helpers of the compiled loops over bytes: reading eight bytes as an integer, and a 64-bit hash of a span."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from dmoe.data.prepare.split.split_rules import GOLDEN, splitmix64
from dmoe.processes.compiled import compiled

ONES, TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
AHEAD = 8
"""How many look-ups ahead memory is prefetched."""


@intrinsic
def trailing_zeros(context: Any, word: Any) -> Any:
    """The number of zero bits below the lowest set bit."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.false_bit)

    return types.int64(types.uint64), generate


@intrinsic
def prefetch(context: Any, array: Any, place: Any) -> Any:
    """Starts to load array[place] into the cache. A look-up in a large table waits for memory; prefetching lets several wait at once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(array)(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(view.data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        # Arguments: for reading, highest locality, data cache.
        builder.call(builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind), [pointer, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@compiled
def load(text: NDArray[np.uint8], at: int) -> np.uint64:
    """text[at .. at + 7] as a little-endian integer. LLVM compiles it to one load."""
    i = np.uintp(at)
    return (
        np.uint64(text[i])
        | (np.uint64(text[i + np.uintp(1)]) << np.uint64(8))
        | (np.uint64(text[i + np.uintp(2)]) << np.uint64(16))
        | (np.uint64(text[i + np.uintp(3)]) << np.uint64(24))
        | (np.uint64(text[i + np.uintp(4)]) << np.uint64(32))
        | (np.uint64(text[i + np.uintp(5)]) << np.uint64(40))
        | (np.uint64(text[i + np.uintp(6)]) << np.uint64(48))
        | (np.uint64(text[i + np.uintp(7)]) << np.uint64(56))
    )


@compiled
def first_bytes(text: NDArray[np.uint8], at: int, size: int) -> np.uint64:
    """The first `size` (1 to 8) bytes as a little-endian integer, with zeros above them."""
    if at + 8 <= len(text):
        return load(text, at) & (np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * size))
    word = np.uint64(0)
    for i in range(size):
        word |= np.uint64(text[at + i]) << np.uint64(8 * i)
    return word


@compiled
def find(text: NDArray[np.uint8], at: int, end: int, byte: np.uint8) -> int:
    """First position of `byte` in at .. end - 1; `end` if there is none."""
    repeated = np.uint64(byte) * ONES
    while at < end and at + 8 <= len(text):
        word = load(text, at) ^ repeated
        # The lowest top bit that is set is that of the first byte 0.
        zeros = (word - ONES) & ~word & TOPS
        if zeros:
            return min(at + (trailing_zeros(zeros) >> 3), end)
        at += 8
    while at < end and text[at] != byte:
        at += 1
    return min(at, end)


mixed = compiled(splitmix64)


@compiled
def hash_span(text: NDArray[np.uint8], at: int, size: int) -> np.uint64:
    """A hash of a span. Two different spans of the same size, at most 8 bytes, never have the same hash."""
    x = np.uint64(size) * GOLDEN
    while size > 8:
        x = mixed(x ^ load(text, at))
        at += 8
        size -= 8
    if size:
        x ^= first_bytes(text, at, size)
    return mixed(x)


@compiled
def same_bytes(one: NDArray[np.uint8], at: int, other: NDArray[np.uint8], there: int, size: int) -> bool:
    while size > 8:
        if load(one, at) != load(other, there):
            return False
        at += 8
        there += 8
        size -= 8
    return size == 0 or first_bytes(one, at, size) == first_bytes(other, there, size)


@compiled
def hash_spans(text: NDArray[np.uint8], edges: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    """Sets out[i] to hash_span of the bytes edges[i] .. edges[i + 1] - 1."""
    for i in range(len(out)):
        out[i] = hash_span(text, edges[i], edges[i + 1] - edges[i])


@compiled
def fill_slots(slots: NDArray[np.int32], hash_of: NDArray[np.uint64]) -> None:
    """Inserts the tokens 1, 2, ... with these hashes into an empty table (all slots 0), by open addressing with linear probing."""
    mask = np.uint64(len(slots) - 1)
    for i in range(len(hash_of)):
        slot = hash_of[i] & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = i + 1


@compiled
def fetch_ahead(hashes: NDArray[np.uint64], i: int, slots: NDArray[np.int32], hash_of: NDArray[np.uint64], at: NDArray[np.int64]) -> None:
    """Called before the look-up of hashes[i]: prefetches the slots, hashes and positions that later look-ups will read."""
    if i + 2 * AHEAD < len(hashes):
        mask = np.uint64(len(slots) - 1)
        prefetch(slots, np.int64(hashes[i + 2 * AHEAD] & mask))
        known = slots[hashes[i + AHEAD] & mask] - 1
        if known >= 0:
            prefetch(hash_of, known)
            prefetch(at, known)


@compiled
def _occurrences(text: NDArray[np.uint8], byte: np.uint8) -> int:
    found = 0
    for one in text:
        found += one == byte
    return found


def occurrences(text: bytes, byte: bytes) -> int:
    """As `text.count(byte)`, but five times as fast."""
    return int(_occurrences(np.frombuffer(text, np.uint8), np.uint8(byte[0])))
