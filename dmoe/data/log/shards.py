"""Stage 3: tokens become ids, numbers dense features, and rows parquet shards.

The log is cut into ranges of a fixed number of rows; a range gives one shard to each split that has rows in it, and a note once they
stand, by which a killed run continues. Shards depend on the rows alone, not on blocks or workers.

Shapes: N rows of a range.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import GROUP, MISSING_ID, RARE_ID, WEIGHT
from dmoe.data.log.buckets import SAMPLE, Buckets
from dmoe.data.log.encode import LABEL
from dmoe.data.log.parts import read_columns, rows_between
from dmoe.data.log.schema import Categorical, Schema
from dmoe.data.log.split import PartSplitter
from dmoe.data.log.tokens import TokenIds
from dmoe.data.log.vocabulary import Vocabulary, tokens_of
from dmoe.data.parquet import many_values, write_shard
from dmoe.data.progress import Progress
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
    sums = {name: np.zeros(3) for name in names}
    for begin in range(0, splitter.total if names else 0, rows_a_step):
        columns = _numbers(splitter, names, begin, min(begin + rows_a_step, splitter.total))
        for name, value_N in columns.items():
            count = len(value_N)
            if count:
                mean = value_N.mean()
                seen, old, scatter = sums[name]
                step = mean - old
                sums[name][:] = (
                    seen + count,
                    old + step * count / (seen + count),
                    scatter + ((value_N - mean) ** 2).sum() + step**2 * seen * count / (seen + count),
                )
    return {name: (float(mean), float(np.sqrt(scatter / count)) if scatter else 1.0) for name, (count, mean, scatter) in sums.items()}


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
    """The dense feature of a number, float32; what float32 cannot hold is its largest."""
    if transform == "log1p":
        value_N = np.copysign(np.log1p(np.abs(value_N)), value_N)
    elif transform == "standardise" and moments is not None:
        value_N = (value_N - moments[0]) / moments[1]
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
        table, split_N, done = _range(splitter, mapping, begin, end)
        for place, name in enumerate(names):
            rows = table.filter(pa.array(split_N == place)) if len(names) > 1 else table
            if len(rows):
                path = os.path.join(folder, f"{number:06d}-{name}.parquet")
                positives = int(pc.sum(rows["label"]).as_py())
                kept = rows if mapping.labelled else rows.drop_columns("label")
                done.shards[name] = (path, len(rows), positives, write_shard(path, kept, row_group_rows, mapping.many_values))
        write_text(note, json.dumps(done.__dict__), sync=False)
        return done, end - begin

    ranges = []
    with ThreadPoolExecutor(workers) as pool:
        for done, rows in pool.map(work, range(0, splitter.total, rows_per_shard)):
            progress.update(rows=rows)
            ranges.append(done)
    progress.close()
    return ranges


def _range(splitter: PartSplitter, mapping: Mapping, begin: int, end: int) -> tuple[pa.Table, NDArray[np.uint8], Range]:
    """The rows begin .. end - 1 as the shards' columns, each row's split, and what is counted of them."""
    schema = mapping.schema
    dense, categorical = [one.name for one in schema.dense], [one.name for one in schema.categorical]
    extra = [name for name, given in ((WEIGHT, schema.weight), (GROUP, schema.group)) if given]
    pieces: dict[str, list[pa.Array]] = {name: [] for name in ("label", *dense, *categorical, *extra)}
    splits: list[NDArray[np.uint8]] = []
    missing, counted = np.zeros(len(dense), np.int64), np.zeros((len(categorical), 3), np.int64)
    for part, low, high, first in rows_between(splitter.parts, splitter.firsts, begin, end):
        splits.append(splitter.assign(int(np.searchsorted(splitter.firsts, first, side="right")) - 1)[low:high])
        batch = read_columns(part, [LABEL, *dense, *categorical, *extra]).slice(low, high - low)
        pieces["label"].append(batch.column(LABEL))
        for name in extra:
            pieces[name].append(batch.column(name))
        for place, one in enumerate(schema.dense):
            column = batch.column(one.name)
            given_N = column.is_valid().to_numpy(zero_copy_only=False)
            value_N = transformed(pc.fill_null(column, 0.0).to_numpy(), one.transform, mapping.moments.get(one.name))
            missing[place] += int((~given_N).sum())
            pieces[one.name].append(pa.array(np.where(given_N, value_N, np.float32(0))))
        for place, feature in enumerate(schema.categorical):
            column = batch.column(feature.name)
            if feature.name in mapping.buckets:
                column = mapping.buckets[feature.name].coded(column)
            ids = _ids(column, feature, mapping.tables[feature.name])
            flat = ids.flatten().to_numpy() if feature.pooling else ids.to_numpy()
            counted[place] += [(flat == MISSING_ID).sum(), (flat == RARE_ID).sum(), len(flat)]
            pieces[feature.name].append(ids)
    split_N = np.concatenate(splits)
    table = pa.table({name: pa.chunked_array(arrays).combine_chunks() for name, arrays in pieces.items()})
    train = split_N == 0
    weight_N = table[WEIGHT].to_numpy().astype(np.float64)[train] if schema.weight else np.ones(int(train.sum()))
    of_positives = float(weight_N[table["label"].to_numpy()[train] > 0].sum())
    return table, split_N, Range({}, missing.tolist(), counted.tolist(), (float(weight_N.sum()), of_positives))


def _ids(column: pa.Array, feature: Categorical, table: TokenIds) -> pa.Array:
    """int32 ids, or a list of them a row; a row without a token has MISSING_ID."""
    tokens, codes, row = tokens_of(column)
    of_code = np.append(table.look_up(tokens), np.int32(MISSING_ID)).astype(np.int32)
    if not feature.pooling:
        return pa.array(of_code[codes])
    lengths = np.bincount(row, minlength=len(column))
    full = np.maximum(lengths, 1)
    offsets = np.concatenate([[0], np.cumsum(full)]).astype(np.int32)
    ids = np.full(offsets[-1], MISSING_ID, np.int32)
    ids[np.repeat(lengths > 0, full)] = of_code[codes]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids))
