"""Ids by hash, which need no vocabulary: id = 2 + splitmix64(token + golden ratio) mod (size - 2); 0 is missing, 1 (rare) unused.

A token is the hex value of a C column's, or the bucket's number of an I column as 32 bits two's complement. What is lost by it,
tokens that share an id, is measured in one pass: distinct ids exactly, by a bit each; distinct tokens by linear counting
(Whang et al. 1990) with 2^24 bits, whose standard error is below 0.1 % up to 100 million tokens.
"""

import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dmoe.data.criteo import BUCKETS, CATEGORICAL
from dmoe.data.dataset.manifest import MISSING_ID, RARE_ID
from dmoe.data.engine import Engine, run_tasks
from dmoe.data.parse import token_columns
from dmoe.data.progress import Progress
from dmoe.data.stage import Part, read_groups
from dmoe.errors import UserError, nearest
from dmoe.paths import write_atomic

FIRST_ID = RARE_ID + 1
FUNCTION = "2 + splitmix64(token + 0x9e3779b97f4a7c15) mod (N - 2)"
"""What `hash_ids` computes, as manifests name it: another function takes another name."""
BUCKET_SIZE = 4096
"""A bucket feature's table has no more rows than this unless it is named: it has some hundred buckets."""
TOKEN_BITS, BUCKET_BITS = 24, 16


def parse_sizes(text: str) -> dict[str, int]:
    """`1000000` or `1000000,C6=5000,I1_bucket=64`: rows of every feature's table, in the order of CATEGORICAL.

    Raises:
        UserError: not a number, an unknown feature, or a size that leaves no id to hash into.
    """
    default, named = None, {}
    for part in text.split(","):
        name, _, size = part.strip().rpartition("=")
        if not size.isdigit() or not FIRST_ID < int(size) < 2**31:
            raise UserError(f"--hash-size '{part.strip()}': expected {FIRST_ID + 1} .. {2**31 - 1} rows, as in 1000000,C6=5000")
        if not name:
            default = int(size)
        elif name in CATEGORICAL:
            named[name] = int(size)
        else:
            raise UserError(f"--hash-size {name}: no such feature{nearest(name, CATEGORICAL)}")
    if default is None and len(named) < len(CATEGORICAL):
        raise UserError(f"--hash-size {text}: expected a size for the other features first, as in 1000000,C6=5000")
    size_of = {name: min(default or 0, BUCKET_SIZE) if name in BUCKETS else default or 0 for name in CATEGORICAL}
    return size_of | named


@njit(nogil=True, cache=True)
def hash_ids(tokens: NDArray[np.uint32], size: int, out: NDArray[np.int32]) -> None:
    """out[i] = the id of tokens[i] in a table of `size` rows."""
    ids = np.uint64(size - 2)
    for i in range(len(tokens)):
        x = np.uint64(tokens[i]) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
        out[i] = np.int32(2) + np.int32(x % ids)


@njit(nogil=True, cache=True)
def _mark(tokens: NDArray[np.uint32], ids: NDArray[np.int32], token_bits: NDArray[np.uint8], id_bits: NDArray[np.uint8]) -> None:
    mask = np.uint64(8 * len(token_bits) - 1)
    for i in range(len(tokens)):
        x = np.uint64(tokens[i]) * np.uint64(0x9E3779B97F4A7C15)
        bit = (x ^ (x >> np.uint64(32))) & mask
        token_bits[bit >> np.uint64(3)] |= np.uint8(1) << np.uint8(bit & np.uint64(7))
        id_bits[ids[i] >> 3] |= np.uint8(1) << np.uint8(ids[i] & 7)


class HashMapper:
    """What dmoe.data.shards.Mapper is for vocabularies."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.cardinalities = sizes

    def ids(self, feature: int, tokens: NDArray[np.uint32]) -> NDArray[np.int32]:
        """The ids of a column's codes: MISSING_ID, then tokens[0]'s, ..."""
        of_code = np.full(len(tokens) + 1, MISSING_ID, np.int32)
        hash_ids(tokens, self.cardinalities[CATEGORICAL[feature]], of_code[1:])
        return of_code


@dataclass(frozen=True)
class Collisions:
    """`tokens` distinct tokens of a feature, nearly, and the `ids` that they got."""

    tokens: int
    ids: int

    @property
    def rate(self) -> float:
        """The share of tokens that have no id of their own: 1 - ids / tokens."""
        return 1 - self.ids / self.tokens if self.tokens else 0.0


class Marks:
    """A bit for each id, and for each hash of a token, that a feature's tokens were seen to have."""

    def __init__(self, bits: int, size: int) -> None:
        self.tokens, self.ids = np.zeros(1 << (bits - 3), np.uint8), np.zeros(-(-size // 8), np.uint8)
        self.lock = threading.Lock()

    def counted(self) -> Collisions:
        slots = 8 * len(self.tokens)
        free = slots - int(np.bitwise_count(self.tokens).sum())
        ids = int(np.bitwise_count(self.ids).sum())
        return Collisions(max(round(-slots * math.log(max(free, 1) / slots)), ids), ids)


def _new_marks(sizes: dict[str, int]) -> list[Marks]:
    return [Marks(BUCKET_BITS if name in BUCKETS else TOKEN_BITS, size) for name, size in sizes.items()]


def measure(parts: list[Part], sizes: dict[str, int], engine: Engine, folder: str = "") -> dict[str, Collisions]:
    """How many distinct tokens each feature has in all rows, and how many ids they got. Memory: 58 MB, and a bit a table row.

    Args:
        folder: where a far engine's tasks, one a worker, leave what they have seen.
    """
    marks = _new_marks(sizes)
    progress = Progress("measure", total_rows=sum(part.rows for part in parts))

    def tell(rows: int) -> None:
        progress.update(rows=rows)

    if engine.far:
        os.makedirs(folder, exist_ok=True)
        batches = [batch for batch in np.array_split(np.arange(len(parts)), engine.workers) if len(batch)]
        seen = {os.path.join(folder, f"{batch[0]:06d}-{batch[-1]:06d}.seen"): batch for batch in batches}
        for _ in run_tasks(engine, _mark_far, (parts, sizes), list(seen.items()), tell):
            pass
        for path in seen:
            with open(path, "rb") as file:
                for one in marks:
                    one.tokens |= np.load(file, allow_pickle=False)
                    one.ids |= np.load(file, allow_pickle=False)
    else:
        for _ in run_tasks(engine, _mark_part, (parts, HashMapper(sizes), marks), range(len(parts)), tell):
            pass
    progress.close()
    return {name: one.counted() for name, one in zip(sizes, marks, strict=True)}


def _mark_part(shared: tuple[list[Part], HashMapper, list[Marks]], number: int) -> Iterator[int]:
    parts, mapper, marks = shared
    for group in read_groups(parts[number].path):
        columns = token_columns(group)
        for step in range(len(columns)):
            feature = (step + 7 * number) % len(columns)
            ids = mapper.ids(feature, columns[feature])[1:]
            with marks[feature].lock:
                _mark(columns[feature], ids, marks[feature].tokens, marks[feature].ids)
    yield parts[number].rows


def _mark_far(shared: tuple[list[Part], dict[str, int]], item: tuple[str, NDArray[np.int64]]) -> Iterator[int]:
    parts, sizes = shared
    path, numbers = item
    marks, mapper = _new_marks(sizes), HashMapper(sizes)
    for number in numbers.tolist():
        yield from _mark_part((parts, mapper, marks), number)
    with write_atomic(path, sync=False) as file:
        for one in marks:
            np.save(file, one.tokens)
            np.save(file, one.ids)
