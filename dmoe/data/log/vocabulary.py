"""Stage 2: the vocabulary of every categorical feature, counted over the train split in bounded memory.

Ids: 0 missing, 1 rare, then 2, 3, ... by count descending, token ascending. Counts that outgrow the limit are spilled, cut by a hash of
the token, and each cut is added up alone at the end.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.engine import Threads, run_tasks
from dmoe.data.log.buckets import Buckets
from dmoe.data.log.counting_tables import CountingTable, count_codes
from dmoe.data.log.parts import Part, read_columns
from dmoe.data.progress import Progress
from dmoe.data.vocabulary_files import read_table

CUTS_LOG2 = 7
"""A feature's spilled counts are added up in 2^7 cuts."""
SPILLED = pa.schema({"token": pa.large_binary(), "count": pa.int64()})


@dataclass
class Vocabulary:
    """Tokens (large_binary) that have an id of their own, in the order of ids: tokens[i] has id 2 + i."""

    name: str
    tokens: pa.Array
    counts: NDArray[np.int64]

    @property
    def cardinality(self) -> int:
        return RARE_ID + 1 + len(self.tokens)


class Counts:
    """Counts of one feature's tokens."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.table = CountingTable()
        self.spilled: list[str] = []

    def spill(self) -> None:
        """Writes the counts away, the cuts as a record batch each."""
        cut = self.table.hashes >> np.uint64(64 - CUTS_LOG2)
        order = np.argsort(cut, kind="stable")
        edges = np.searchsorted(cut[order], np.arange((1 << CUTS_LOG2) + 1))
        path = os.path.join(self.folder, f"{len(self.spilled)}.arrow")
        os.makedirs(self.folder, exist_ok=True)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, SPILLED) as writer:
            for low, high in pairwise(edges.tolist()):
                writer.write_batch(pa.record_batch(list(self.table.entries(order[low:high])), schema=SPILLED))
        self.spilled.append(path)
        self.table = CountingTable()

    def kept(self, min_count: int) -> tuple[pa.Array, NDArray[np.int64]]:
        """(tokens, counts) of those counted at least `min_count` times."""
        if not self.spilled:
            return _frequent(self.table, min_count)
        if len(self.table):
            self.spill()
        cuts = []
        for cut in range(1 << CUTS_LOG2):
            summed = CountingTable()
            for path in self.spilled:
                with pa.OSFile(path) as file:
                    batch = pa.ipc.open_file(file).get_batch(cut)
                    summed.add(batch["token"], batch["count"].to_numpy())
            cuts.append(_frequent(summed, min_count))
        return pa.concat_arrays([tokens for tokens, _ in cuts]), np.concatenate([counts for _, counts in cuts])


def _frequent(table: CountingTable, min_count: int) -> tuple[pa.Array, NDArray[np.int64]]:
    return table.entries(np.flatnonzero(table.counts >= min_count))


def tokens_of(column: pa.Array) -> tuple[pa.Array, NDArray[np.int32], NDArray[np.int64]]:
    """(distinct tokens as large_binary; code of each token in the rows, len(tokens) where missing; offsets of the rows' tokens where the
    column is of bags, else empty)."""
    offsets = np.empty(0, np.int64)
    if pa.types.is_large_list(column.type):
        offsets, column = column.offsets.to_numpy(), column.flatten()
        offsets = offsets - offsets[0]
    indices = column.indices.cast(pa.int32())
    codes = (pc.fill_null(indices, len(column.dictionary)) if indices.null_count else indices).to_numpy()
    return column.dictionary.cast(pa.large_binary()), codes, offsets


def count(
    parts: list[Part],
    names: dict[str, int],
    buckets: dict[str, Buckets],
    train_rows: Callable[[int], NDArray[np.bool_]],
    memory_limit: int,
    workers: int,
    folder: str,
) -> list[Vocabulary]:
    """Counts the tokens of the train split.

    Args:
        names: of the categorical features, each with its min_count; `buckets` of those made from numbers.
        train_rows: number of a part -> [rows] bool, whether a row is in the train split.
        memory_limit: bytes for the counts, about.
        folder: for what does not fit.
    """
    counts = {name: Counts(os.path.join(folder, str(place))) for place, name in enumerate(names)}
    progress = Progress("count", total_rows=sum(part.rows for part in parts))

    def work(_: None, number: int) -> Iterator[tuple[int, list[tuple[str, pa.Array, NDArray[np.int64]]]]]:
        batch, train = read_columns(parts[number], list(names)), train_rows(number)
        found = []
        for name in names:
            column = batch.column(name)
            tokens, codes, offsets = tokens_of(buckets[name].coded(column) if name in buckets else column)
            counted = np.zeros(len(tokens) + 1, np.int64)
            count_codes(codes, offsets, train, counted)
            found.append((name, tokens, counted[:-1]))
        yield len(train), found

    with closing(run_tasks(Threads(workers), work, None, range(len(parts)), lambda result: progress.update(rows=result[0]))) as done:
        for _, found in done:
            for name, tokens, counted in found:
                counts[name].table.add(tokens, counted)
            while sum(one.table.nbytes for one in counts.values()) > memory_limit:
                largest = max(counts.values(), key=lambda one: one.table.nbytes)
                if not len(largest.table):
                    break
                largest.spill()
    progress.close()
    return [_ordered(name, *counts[name].kept(least)) for name, least in names.items()]


def _ordered(name: str, tokens: pa.Array, counts: NDArray[np.int64]) -> Vocabulary:
    keys: list[tuple[str, str]] = [("count", "descending"), ("token", "ascending")]
    order = pc.sort_indices(pa.table({"token": tokens, "count": counts}), sort_keys=keys)
    return Vocabulary(name, tokens.take(order), counts[order.to_numpy()])


def read_vocabulary(path: str, name: str) -> Vocabulary:
    """Reads what dmoe.data.vocabulary_files wrote."""
    table = read_table(path, integers=False)
    tokens = table["token"].combine_chunks() if len(table) else pa.array([], pa.large_binary())
    return Vocabulary(name, tokens.cast(pa.large_binary()), table["count"].to_numpy())
