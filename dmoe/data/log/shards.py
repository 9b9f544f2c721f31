"""Stage 3: tokens become ids, numbers dense features, and rows parquet shards.

The log is cut into ranges of a fixed number of rows; a range gives one shard to each split that has rows in it, and a note once they
stand, by which a killed run continues. Shards depend on the rows alone, not on blocks or workers.

Shapes: N rows of a range.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import GROUP, MISSING_ID, RARE_ID, WEIGHT
from dmoe.data.log.buckets import SAMPLE, Buckets
from dmoe.data.log.encode import LABEL
from dmoe.data.log.moments import Moments
from dmoe.data.log.parts import read_columns, rows_between
from dmoe.data.log.schema import Schema
from dmoe.data.log.shard_writer import BySplit, ShardWriter
from dmoe.data.log.split import PartSplitter
from dmoe.data.log.tokens import TokenIds
from dmoe.data.log.vocabulary import Vocabulary, tokens_of
from dmoe.data.parquet import many_values
from dmoe.data.progress import Progress
from dmoe.json_text import format_json
from dmoe.paths import write_text


@dataclass
class Range:
    """A finished range: per split the shard's (file, rows, positives, sha256); over all its rows, per feature: missing numbers, and
    (ids missing, rare, all) of categorical ones; [weight, weight of positives] of the train split."""

    shards: dict[str, tuple[str, int, int, str]]
    missing: list[int]
    ids: list[list[int]]
    train_weight: tuple[float, float]


@dataclass(frozen=True)
class Mapping:
    """What every range needs: the vocabularies as tables, (mean, deviation) of the standardised numbers, and how numbers become tokens."""

    schema: Schema
    labelled: bool
    tables: dict[str, TokenIds]
    moments: dict[str, tuple[float, float]]
    buckets: dict[str, Buckets]
    many_values: frozenset[str]


def make_mapping(
    schema: Schema,
    labelled: bool,
    vocabularies: list[Vocabulary],
    moments: dict[str, tuple[float, float]],
    buckets: dict[str, Buckets],
) -> Mapping:
    many = many_values({one.name: one.cardinality for one in vocabularies}) | {GROUP, WEIGHT}
    return Mapping(schema, labelled, {one.name: TokenIds(one.tokens) for one in vocabularies}, moments, buckets, many)


def train_moments(splitter: PartSplitter, names: list[str], rows_a_step: int) -> dict[str, tuple[float, float]]:
    """(mean, deviation) of numbers over the train split, added up over fixed stretches of rows, so that blocks do not change a bit."""
    moments = {name: Moments() for name in names}
    for begin in range(0, splitter.total if names else 0, rows_a_step):
        for name, value_N in _numbers(splitter, names, begin, min(begin + rows_a_step, splitter.total)).items():
            moments[name].add(value_N)
    for name, one in moments.items():
        if (lone := one.lone_number()) is not None:
            print(f"{name}: one number, {lone:g}, makes nearly all of the spread, so standardise leaves the others none", file=sys.stderr)
    return {name: one.result() for name, one in moments.items()}


def train_samples(splitter: PartSplitter, names: list[str], rows_a_step: int) -> dict[str, NDArray[np.float64]]:
    """About SAMPLE numbers of each column, evenly spread over the train split."""
    every = -(-splitter.total // SAMPLE)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for begin in range(0, splitter.total if names else 0, rows_a_step):
        for name, value_N in _numbers(splitter, names, begin, min(begin + rows_a_step, splitter.total)).items():
            found[name].append(value_N[::every].copy())
    return {name: np.concatenate(values) for name, values in found.items()}


def _numbers(splitter: PartSplitter, names: list[str], begin: int, end: int) -> dict[str, NDArray[np.float64]]:
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for part, low, high, first in rows_between(splitter.parts, splitter.firsts, begin, end):
        number = int(np.searchsorted(splitter.firsts, first, side="right")) - 1
        train = splitter.assign(number)[low:high] == 0
        batch = read_columns(part, names).slice(low, high - low).filter(pa.array(train))
        for name in names:
            found[name].append(batch.column(name).drop_null().to_numpy())
    return {name: np.concatenate([*values, np.empty(0)]) for name, values in found.items()}


def transformed(value_N: NDArray[np.float64], transform: str, moments: tuple[float, float] | None) -> NDArray[np.float32]:
    """The dense feature of a finite number, float32; what float32 cannot hold is its largest."""
    if transform == "log1p":
        value_N = np.copysign(np.log1p(np.abs(value_N)), value_N)
    elif transform == "standardise" and moments is not None:
        # In halves, which are exact, so that the difference of two large numbers does not overflow.
        with np.errstate(over="ignore"):
            value_N = (value_N / 2 - moments[0] / 2) / (moments[1] / 2)
    limit = float(np.finfo(np.float32).max)
    return np.clip(value_N, -limit, limit).astype(np.float32)


def write_shards(
    splitter: PartSplitter, mapping: Mapping, folder: str, names: tuple[str, ...], rows_per_shard: int, row_group_rows: int, workers: int
) -> list[Range]:
    """Writes the shards of all ranges that are not finished yet, into `folder`, and returns all ranges in order.

    Args:
        names: of the splits; with one only, all rows go there.
    """
    os.makedirs(folder, exist_ok=True)
    progress = Progress("write", total_rows=splitter.total)

    def work(begin: int) -> tuple[Range, int]:
        end, number = min(begin + rows_per_shard, splitter.total), begin // rows_per_shard
        note = os.path.join(folder, f"{number:06d}.json")
        if os.path.exists(note):
            with open(note) as file:
                return Range(**json.load(file)), end - begin
        writers = [ShardWriter(os.path.join(folder, f"{number:06d}-{name}.parquet"), row_group_rows, mapping.many_values) for name in names]
        done = _write_range(splitter, mapping, begin, end, writers)
        for name, one in zip(names, writers, strict=True):
            if one.rows:
                done.shards[name] = (one.path, one.rows, one.positives, one.close())
        write_text(note, format_json(done.__dict__), sync=False)
        return done, end - begin

    ranges = []
    with ThreadPoolExecutor(workers) as pool:
        for done, rows in pool.map(work, range(0, splitter.total, rows_per_shard)):
            progress.update(rows=rows)
            ranges.append(done)
    progress.close()
    return ranges


def _write_range(splitter: PartSplitter, mapping: Mapping, begin: int, end: int, writers: list[ShardWriter]) -> Range:
    """Writes the rows begin .. end - 1, those of each split by its writer; returns what is counted of them, without the shards."""
    schema = mapping.schema
    dense, categorical = [one.name for one in schema.dense], [one.name for one in schema.categorical]
    extra = [name for name, given in ((WEIGHT, schema.weight), (GROUP, schema.group)) if given]
    missing, counted = np.zeros(len(dense), np.int64), np.zeros((len(categorical), 3), np.int64)
    weights, labels = [], []
    for part, low, high, first in rows_between(splitter.parts, splitter.firsts, begin, end):
        split_N = splitter.assign(int(np.searchsorted(splitter.firsts, first, side="right")) - 1)[low:high]
        rows = BySplit(split_N, len(writers))
        batch = read_columns(part, [LABEL, *dense, *categorical, *extra]).slice(low, high - low)
        label_N = rows.placed(batch.column(LABEL).to_numpy())
        columns: dict[str, NDArray[Any] | pa.Array] = {"label": label_N} if mapping.labelled else {}
        for place, one in enumerate(schema.dense):
            column = batch.column(one.name)
            given_N = column.is_valid().to_numpy(zero_copy_only=False)
            value_N = transformed(pc.fill_null(column, 0.0).to_numpy(), one.transform, mapping.moments.get(one.name))
            missing[place] += int((~given_N).sum())
            columns[one.name] = rows.placed(np.where(given_N, value_N, np.float32(0)))
        for place, feature in enumerate(schema.categorical):
            column = batch.column(feature.name)
            if feature.name in mapping.buckets:
                column = mapping.buckets[feature.name].coded(column)
            tokens, codes, token_at = tokens_of(column)
            id_of = np.append(mapping.tables[feature.name].look_up(tokens), np.int32(MISSING_ID)).astype(np.int32)
            if feature.pooling:
                ids, flat = _bags(id_of[codes], token_at)
                columns[feature.name] = ids.take(pa.array(rows.order_N))
                counted[place] += [(flat == MISSING_ID).sum(), (flat == RARE_ID).sum(), len(flat)]
            else:
                columns[feature.name] = rows.ids(codes, id_of, counted[place])
        for name in extra:
            columns[name] = rows.placed(batch.column(name).to_numpy())
        for split, writer in enumerate(writers):
            here = slice(*rows.edges[split : split + 2])
            writer.add({name: column[here] for name, column in columns.items()}, int(label_N[here].sum()) if mapping.labelled else 0)
        train = slice(*rows.edges[:2])
        labels.append(label_N[train])
        weights.append(columns[WEIGHT][train] if schema.weight else np.ones(train.stop))
    weight_N = np.concatenate(weights).astype(np.float64)
    of_positives = float(weight_N[np.concatenate(labels) > 0].sum())
    return Range({}, missing.tolist(), counted.tolist(), (float(weight_N.sum()), of_positives))


def _bags(ids: NDArray[np.int32], token_at: NDArray[np.int64]) -> tuple[pa.Array, NDArray[np.int32]]:
    """A list of ids a row, MISSING_ID where it has no token; and the lists one after another."""
    lengths = np.diff(token_at)
    full = np.maximum(lengths, 1)
    offsets = np.concatenate([[0], np.cumsum(full)]).astype(np.int32)
    flat = np.full(offsets[-1], MISSING_ID, np.int32)
    flat[np.repeat(lengths > 0, full)] = ids
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat)), flat
