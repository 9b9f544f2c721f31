"""Stage 3: tokens become ids, integers dense features, and rows parquet shards.

The log is cut into ranges of a fixed number of rows; a range gives one shard to each split that has rows in it. A range's shards are
written beside, renamed, and entered in the range's note: where the note stands, the range is finished. Shards so depend on the rows
alone, not on blocks or workers.
"""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmoe.data import tables
from dmoe.data.criteo import CATEGORICAL, INTEGERS, LABEL, TOKENS
from dmoe.data.dataset.manifest import MISSING_ID, RARE_ID
from dmoe.data.engine import Engine, run_tasks
from dmoe.data.parquet import many_values, require_finite_columns, sha256_of, writer_options
from dmoe.data.parse import Group, token_columns
from dmoe.data.progress import Progress
from dmoe.data.split import Splitter
from dmoe.data.stage import Part, read_groups
from dmoe.data.vocabulary import Vocabulary
from dmoe.json_text import format_json
from dmoe.paths import write_atomic, write_text


class IdMapper(Protocol):
    """How tokens become ids. Shared by all threads."""

    @property
    def cardinalities(self) -> dict[str, int]:
        """Ids of each categorical feature, in the order of CATEGORICAL."""

    def ids(self, feature: int, tokens: NDArray[np.uint32]) -> NDArray[np.int32]:
        """The ids of a column's codes: MISSING_ID, then the id of tokens[0], tokens[1], ..."""


class Mapper:
    """The vocabularies as hash tables; never written after construction."""

    def __init__(self, vocabularies: list[Vocabulary]) -> None:
        self.tables = []
        for vocabulary in vocabularies:
            slots = 1 << (2 * len(vocabulary.tokens) + 1).bit_length()
            keys, ids = np.zeros(slots, np.uint32), np.zeros(slots, np.int32)
            tables.fill_ids(keys, ids, (vocabulary.tokens & 0xFFFFFFFF).astype(np.uint32), RARE_ID + 1)
            self.tables.append((keys, ids))
        self.cardinalities = {vocabulary.name: vocabulary.cardinality for vocabulary in vocabularies}

    def ids(self, feature: int, tokens: NDArray[np.uint32]) -> NDArray[np.int32]:
        of_code = np.full(len(tokens) + 1, MISSING_ID, np.int32)
        keys, known = self.tables[feature]
        tables.look_up(keys, known, tokens, RARE_ID, of_code[1:])
        return of_code


def _of_codes(mapper: IdMapper, group: Group) -> tuple[list[NDArray[np.int32]], list[NDArray[np.float32]]]:
    """For each categorical feature the ids of a group's codes, and for each dense feature its values, by code."""
    ids = [mapper.ids(feature, tokens) for feature, tokens in enumerate(token_columns(group))]
    integers = np.split(group.values, np.cumsum(group.sizes)[:-1])[: len(INTEGERS)]
    return ids, [np.concatenate([np.zeros(1, np.float32), tables.dense(column)]) for column in integers]


@dataclass
class Range:
    """A finished range: per split the shard's file, rows, positives and sha256; missing and rare counts per categorical feature."""

    shards: dict[str, tuple[str, int, int, str]]
    missing: list[int]
    rare: list[int]

    @property
    def rows(self) -> int:
        return sum(rows for _, rows, _, _ in self.shards.values())


class ShardWriter:
    """One parquet shard: rows are buffered up to a row group, which is then written."""

    def __init__(self, path: str, group_rows: int, many_values: Collection[str], labelled: bool) -> None:
        self.path, self.group_rows, self.many_values, self.labelled = path, group_rows, many_values, labelled
        self.label = np.empty(group_rows, np.uint8)
        self.ids = np.empty((len(CATEGORICAL), group_rows), np.int32)
        self.dense = np.empty((len(INTEGERS), group_rows), np.float32)
        self.buffered = self.rows = self.positives = 0
        self.missing, self.rare = np.zeros(len(CATEGORICAL), np.int64), np.zeros(len(CATEGORICAL), np.int64)
        self.writer: Any = None
        self.written = ExitStack()

    def add(self, group: Group, rows: NDArray[np.int64], ids: list[NDArray[np.int32]], dense: list[NDArray[np.float32]]) -> None:
        """Appends the given rows of a group, mapped by what _of_codes gave."""
        while len(rows):
            now, rows = rows[: self.group_rows - self.buffered], rows[self.group_rows - self.buffered :]
            here = slice(self.buffered, self.buffered + len(now))
            self.label[here] = group.label[now]
            for i in range(len(INTEGERS)):
                tables.gather_dense(group.codes[i], now, dense[i], self.dense[i, here])
            for f in range(len(CATEGORICAL)):
                column = f + len(INTEGERS) if f < len(TOKENS) else f - len(TOKENS)
                missing, rare = tables.gather_ids(group.codes[column], now, ids[f], self.ids[f, here])
                self.missing[f] += missing
                self.rare[f] += rare
            self.buffered += len(now)
            if self.buffered == self.group_rows:
                self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        n = self.buffered
        columns = [*self.dense[:, :n], *self.ids[:, :n]]
        names = [*INTEGERS, *CATEGORICAL]
        if self.labelled:
            columns, names = [self.label[:n], *columns], [LABEL, *names]
        table = pa.table([pa.array(column) for column in columns], names=names)
        require_finite_columns(self.path, table, self.rows)
        if self.writer is None:
            file = self.written.enter_context(write_atomic(self.path, sync=False))
            self.writer = pq.ParquetWriter(file, table.schema, **writer_options(table.schema, self.many_values))
        self.writer.write_table(table, row_group_size=n)
        self.positives += int(self.label[:n].sum()) if self.labelled else 0
        self.rows, self.buffered = self.rows + n, 0

    def close(self) -> tuple[str, int, int, str] | None:
        """Finishes the file; (path, rows, positives, sha256), or None where there were no rows."""
        if self.buffered:
            self._flush()
        if self.writer is None:
            return None
        self.writer.close()
        self.written.close()
        return self.path, self.rows, self.positives, sha256_of(self.path)


def _groups(parts: list[Part], firsts: NDArray[np.int64], begin: int, end: int) -> Iterator[tuple[int, Group]]:
    """The groups that hold rows begin .. end - 1, each with the number of its first row."""
    number = int(np.searchsorted(firsts, begin, side="right")) - 1
    while number < len(parts) and firsts[number] < end:
        first = int(firsts[number])
        if first + parts[number].rows > begin:
            for group in read_groups(parts[number].path):
                if first < end and first + len(group.label) > begin:
                    yield first, group
                first += len(group.label)
        number += 1


@dataclass(frozen=True)
class Job:
    """What decides the shards: the rows of `parts` in order, how they are split and mapped, and how they are cut."""

    parts: list[Part]
    splitter: Splitter
    mapper: IdMapper
    rows_per_shard: int
    row_group_rows: int
    labelled: bool

    @property
    def total(self) -> int:
        return sum(part.rows for part in self.parts)


def write_range(job: Job, folder: str, number: int) -> Range:
    """Writes the shards of range `number`, unless its note says that they are there."""
    note = os.path.join(folder, f"{number:06d}.json")
    if os.path.exists(note):
        with open(note) as file:
            return Range(**json.load(file))
    firsts = np.cumsum([0] + [part.rows for part in job.parts])
    total, begin = int(firsts[-1]), number * job.rows_per_shard
    end = min(begin + job.rows_per_shard, total)
    many = many_values(job.mapper.cardinalities)
    names = job.splitter.names
    writers = [ShardWriter(os.path.join(folder, f"{number:06d}-{name}.parquet"), job.row_group_rows, many, job.labelled) for name in names]
    for first, group in _groups(job.parts, firsts, begin, end):
        ids, dense = _of_codes(job.mapper, group)
        low, high = max(begin - first, 0), min(end - first, len(group.label))
        split = job.splitter.assign(first + low, high - low, total)
        for index, writer in enumerate(writers):
            writer.add(group, low + np.flatnonzero(split == index), ids, dense)
    closed = {name: writer.close() for name, writer in zip(names, writers, strict=True)}
    done = Range(
        {name: shard for name, shard in closed.items() if shard},
        np.sum([writer.missing for writer in writers], axis=0).tolist(),
        np.sum([writer.rare for writer in writers], axis=0).tolist(),
    )
    write_text(note, format_json(done.__dict__), sync=False)
    return done


def _write_range(shared: tuple[Job, str], number: int) -> Iterator[Range]:
    yield write_range(*shared, number)


def write_shards(job: Job, folder: str, engine: Engine) -> list[Range]:
    """Writes the shards of all ranges that are not finished yet, into `folder`, and returns all ranges in order."""
    os.makedirs(folder, exist_ok=True)
    progress = Progress("write", total_rows=job.total)
    numbers = range(-(-job.total // job.rows_per_shard))
    ranges = list(run_tasks(engine, _write_range, (job, folder), numbers, lambda done: progress.update(rows=done.rows)))
    progress.close()
    return ranges
