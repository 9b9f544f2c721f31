"""Stage 3: tokens become ids, numbers dense features, and rows parquet shards.

The log is cut into ranges of a fixed number of rows; a range gives one shard to each split that has rows in it. A range's shards are
written beside, renamed, and entered in the range's note: where the note stands, the range is finished. Shards so depend on the rows
alone, not on blocks or workers.

Shapes: N rows of a batch, R of them that are written, T tokens.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import GROUP, MISSING_ID, RARE_ID, WEIGHT
from dmoe.data.parquet import ShardFile, many_values, require_finite_columns
from dmoe.data.prepare import kernels
from dmoe.data.prepare.coded import Coded
from dmoe.data.prepare.encode import LABEL
from dmoe.data.prepare.engine import Engine, run_tasks
from dmoe.data.prepare.extents import joined
from dmoe.data.prepare.features import Tokens, dense_of
from dmoe.data.prepare.negatives import Negatives
from dmoe.data.prepare.shuffle import ORDER, SortedFile, gather_shards, order_of, within
from dmoe.data.prepare.split_rules import NAMES
from dmoe.data.prepare.tokens import Ids
from dmoe.data.progress import Progress
from dmoe.json_text import format_json
from dmoe.paths import write_text

TYPES = {"label": np.uint8, WEIGHT: np.float32, GROUP: np.int64, ORDER: np.uint64}
BAG_TOKENS = 8
TRAIN = NAMES[0]


@dataclass
class Range:
    """A finished range: per split the shard's (file, rows, positives, sha256); over all its rows, per feature: missing numbers, and
    (ids missing, rare, all) of categorical ones; [weight, weight of positives] of the train split; how many of its rows are
    left out; [lowest, highest] value of each feature, in the shards, but for bags."""

    shards: dict[str, tuple[str, int, int, str]]
    missing: list[int]
    ids: list[list[int]]
    train_weight: tuple[float, float]
    left_out: int = 0
    extent: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Of the log."""
        return sum(rows for _, rows, _, _ in self.shards.values()) + self.left_out


@dataclass(frozen=True)
class Job:
    """What decides the shards: the rows of parts in order, how they are split and mapped, and how they are cut.

    Attributes:
        shuffle: the seed by which the train split is shuffled, if it is.
        ids: token -> id of each categorical feature, and how many `cardinalities` says; moments: (mean, deviation) of standardised numbers.
    """

    tokens: Tokens
    ids: dict[str, Ids]
    cardinalities: dict[str, int]
    moments: dict[str, tuple[float, float]]
    labelled: bool
    rows_per_shard: int
    row_group_rows: int
    negatives: Negatives | None = None
    shuffle: int | None = None

    @property
    def row_bytes(self) -> int:
        """Of a row in memory, about: BAG_TOKENS of a bag."""
        bags = sum(one.pooling is not None for one in self.tokens.schema.categorical)
        return 32 + 4 * len(self.tokens.schema.features) + 4 * BAG_TOKENS * bags

    @property
    def extra(self) -> list[str]:
        """The columns of shards that are neither label nor features."""
        schema = self.tokens.schema
        return [name for name, given in ((WEIGHT, schema.weight or self.negatives), (GROUP, schema.group)) if given]

    @property
    def stored(self) -> list[str]:
        """The columns of parts that rows are made of."""
        schema = self.tokens.schema
        given = [name for name, column in ((WEIGHT, schema.weight), (GROUP, schema.group)) if column]
        return [LABEL, *given, *(one.stored for one in schema.dense), *self.tokens.stored]

    @property
    def many(self) -> frozenset[str]:
        return many_values(self.cardinalities) | {GROUP, WEIGHT}


@dataclass(frozen=True)
class Mapped:
    """Some rows as the shards' columns: of_code[codes[n]] is row n's value; bags are lists of ids."""

    scalars: dict[str, tuple[NDArray[Any], NDArray[Any]]]
    bags: dict[str, pa.ListArray]


def map_rows(job: Job, batch: pa.RecordBatch) -> Mapped:
    """Maps tokens to ids and transforms numbers, each distinct one once."""
    schema, rows = job.tokens.schema, np.arange(batch.num_rows)
    mapped = Mapped({}, {})
    for name, stored in {"label": LABEL, **{name: name for name in job.extra}}.items():
        ones = name == WEIGHT and not schema.weight
        mapped.scalars[name] = rows, np.ones(len(rows), np.float32) if ones else batch.column(stored).to_numpy()
    for one in schema.dense:
        mapped.scalars[one.name] = dense_of(batch.column(one.stored), one.transform, job.moments.get(one.name))
    for feature in schema.categorical:
        coded = job.tokens.of(feature, batch)
        of_code = np.append(np.int32(MISSING_ID), job.ids[feature.name].look_up(coded.values))
        if coded.lengths is None:
            mapped.scalars[feature.name] = coded.codes, of_code
        else:
            mapped.bags[feature.name] = _bags(coded, of_code)
    return mapped


def _bags(coded: Coded, of_code: NDArray[np.int32]) -> pa.ListArray:
    """A list of ids a row; a row without a token has MISSING_ID."""
    assert coded.lengths is not None
    full_N = np.maximum(coded.lengths, 1)
    offsets = np.concatenate([[0], np.cumsum(full_N)]).astype(np.int32)
    id_T = np.full(offsets[-1], MISSING_ID, np.int32)
    id_T[np.repeat(coded.lengths > 0, full_N)] = of_code[coded.codes]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(id_T))


@dataclass
class ShardWriter:
    """One shard, or where it is shuffled one sorted file: rows are buffered up to a row group, which is then written."""

    path: str
    job: Job
    shuffled: bool
    columns: dict[str, NDArray[Any]] = field(init=False)
    bags: dict[str, list[pa.ListArray]] = field(init=False)
    missing: dict[str, int] = field(init=False)
    ids: dict[str, NDArray[np.int64]] = field(init=False)
    extent: dict[str, tuple[float, float]] = field(default_factory=dict)
    weights: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.uint8]] = field(default_factory=list)
    buffered: int = 0
    rows: int = 0
    positives: int = 0
    file: ShardFile | SortedFile = field(init=False)

    def __post_init__(self) -> None:
        self.path += ".arrow" if self.shuffled else ".parquet"
        self.file = SortedFile(self.path) if self.shuffled else ShardFile(self.path, self.job.many)
        schema, room = self.job.tokens.schema, self.job.row_group_rows
        types = TYPES | {one.name: np.float32 for one in schema.dense} | {one.name: np.int32 for one in schema.categorical}
        bags = [one.name for one in schema.categorical if one.pooling]
        # In the order of the shards' columns.
        names = ["label"] * self.job.labelled + [one.name for one in schema.features] + self.job.extra + [ORDER] * self.shuffled
        self.order = names
        self.columns = {name: np.empty(room, types[name]) for name in {"label", *names} - set(bags)}
        self.bags = {name: [] for name in bags}
        self.missing = {one.name: 0 for one in schema.dense}
        self.ids = {one.name: np.zeros(3, np.int64) for one in schema.categorical}

    def add(self, mapped: Mapped, row_R: NDArray[np.int64]) -> None:
        """Appends the given rows."""
        while len(row_R):
            now, row_R = row_R[: self.job.row_group_rows - self.buffered], row_R[self.job.row_group_rows - self.buffered :]
            here = slice(self.buffered, self.buffered + len(now))
            for name, (codes, of_code) in ((name, mapped.scalars[name]) for name in self.columns):
                missing, rare = kernels.gather(codes, now, of_code, self.columns[name][here])
                if name in self.ids:
                    self.ids[name] += (missing, rare, len(now))
                elif name in self.missing:
                    self.missing[name] += missing
            for name, bags in mapped.bags.items():
                taken = bags.take(pa.array(now))
                flat = taken.flatten().to_numpy()
                self.ids[name] += ((flat == MISSING_ID).sum(), (flat == RARE_ID).sum(), len(flat))
                self.bags[name].append(taken)
            self.buffered += len(now)
            if self.buffered == self.job.row_group_rows:
                self._flush()

    def _flush(self) -> None:
        n = self.buffered
        arrays = {name: pa.array(column[:n]) for name, column in self.columns.items()}
        arrays |= {name: pa.concat_arrays(pieces) for name, pieces in self.bags.items()}
        table = pa.table({name: arrays[name] for name in self.order})
        require_finite_columns(self.path, table, self.rows)
        self.file.write(table, n)
        features = [name for name in self.order if name in self.columns and (name in self.missing or name in self.ids)]
        here = {name: (float(self.columns[name][:n].min()), float(self.columns[name][:n].max())) for name in features}
        self.extent = joined([self.extent, here])
        label_R = self.columns["label"][:n]
        if WEIGHT in self.columns:
            self.weights.append(self.columns[WEIGHT][:n].copy())
            self.labels.append(label_R.copy())
        self.rows, self.positives, self.buffered = self.rows + n, self.positives + int(label_R.sum()) * self.job.labelled, 0
        self.bags = {name: [] for name in self.bags}
        if self.shuffled:
            # The file keeps the old ones.
            self.columns = {name: np.empty_like(column) for name, column in self.columns.items()}

    def close(self) -> tuple[str, int, int, str] | None:
        """Finishes the file; (path, rows, positives, sha256), or None where there were no rows."""
        if self.buffered:
            self._flush()
        sha256 = self.file.close()
        return (self.path, self.rows, self.positives, sha256) if sha256 else None

    def weight(self) -> tuple[float, float]:
        """The rows' weight, and that of the positives."""
        if not self.weights:
            return float(self.rows), float(self.positives)
        weight_R = np.concatenate(self.weights).astype(np.float64)
        return float(weight_R.sum()), float(weight_R[np.concatenate(self.labels) > 0].sum())


def write_range(job: Job, folder: str, number: int) -> Range:
    """Writes the shards of range `number`, unless its note says that they are there."""
    note = os.path.join(folder, f"{number:06d}.json")
    if os.path.exists(note):
        with open(note) as file:
            return Range(**json.load(file))
    splitter, schema = job.tokens.splitter, job.tokens.schema
    begin = number * job.rows_per_shard
    end = min(begin + job.rows_per_shard, splitter.total)
    names = splitter.splitter.names
    shuffled = TRAIN if job.shuffle is not None else None
    writers = [ShardWriter(os.path.join(folder, f"{number:06d}-{name}"), job, name == shuffled) for name in names]
    left_out = 0
    assigned: tuple[int, NDArray[np.uint8]] = (-1, np.empty(0, np.uint8))
    with ExitStack() as files:
        for writer in writers:
            files.enter_context(writer.file)
        for part, batch, first in splitter.batches(job.stored, begin, end):
            if assigned[0] != part:
                assigned = part, splitter.assign(part)
            mapped, split_N = map_rows(job, batch), assigned[1][first : first + batch.num_rows]
            if job.negatives:
                split_N, dropped = _sampled(job.negatives, mapped, split_N, int(splitter.firsts[part]) + first)
                left_out += dropped
            if job.shuffle is not None:
                order_N = order_of(job.shuffle, int(splitter.firsts[part]) + first, batch.num_rows)
                mapped.scalars[ORDER] = np.arange(batch.num_rows), order_N
            for place, writer in enumerate(writers):
                writer.add(mapped, np.flatnonzero(split_N == place))
        closed = {name: writer.close() for name, writer in zip(names, writers, strict=True)}
    done = Range(
        {name: shard for name, shard in closed.items() if shard},
        [sum(writer.missing[one.name] for writer in writers) for one in schema.dense],
        [np.sum([writer.ids[one.name] for writer in writers], axis=0).tolist() for one in schema.categorical],
        writers[0].weight(),
        left_out,
        joined(writer.extent for writer in writers),
    )
    write_text(note, format_json(vars(done)), sync=False)
    return done


def _sampled(negatives: Negatives, mapped: Mapped, split_N: NDArray[np.uint8], first: int) -> tuple[NDArray[np.uint8], int]:
    """(the split of each row, that of no split where it is left out; how many are), with the weights of those that are kept."""
    train_N, label_N = split_N == 0, mapped.scalars["label"][1]
    out_N = train_N & ~negatives.kept(label_N, first)
    codes, weight_N = mapped.scalars[WEIGHT]
    mapped.scalars[WEIGHT] = codes, np.where(train_N, negatives.weights(label_N, weight_N), weight_N)
    return np.where(out_N, np.uint8(len(NAMES)), split_N), int(out_N.sum())


def _write_range(shared: tuple[Job, str], number: int) -> Iterator[Range]:
    yield write_range(*shared, number)


def write_shards(job: Job, folder: str, engine: Engine, limit: int) -> list[Range]:
    """Writes the shards of all ranges that are not finished yet, into `folder`, and returns all ranges in order.

    Args:
        limit: bytes, about, of the rows that are held to be shuffled.
    """
    os.makedirs(folder, exist_ok=True)
    if job.shuffle is not None:
        engine = within(engine, min(job.rows_per_shard, job.tokens.splitter.total), job.row_bytes, limit)
    total = job.tokens.splitter.total
    progress = Progress("write", total_rows=total)
    numbers = range(-(-total // job.rows_per_shard))
    ranges = list(run_tasks(engine, _write_range, (job, folder), numbers, lambda done: progress.update(rows=done.rows)))
    progress.close()
    if job.shuffle is None:
        return ranges
    files = [done.shards.pop(TRAIN) for done in ranges if TRAIN in done.shards]
    shards = gather_shards(files, folder, job.rows_per_shard, job.row_group_rows, job.many, engine)
    # There are at most as many as ranges.
    for done, shard in zip(ranges, shards, strict=False):
        done.shards[TRAIN] = shard
    return ranges
