"""Prepares a window: makes a data set of its files, and maps its ids to table rows before and after the window.

Shapes: N ids of the vocabulary of the window.
"""

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmoe.config.online_settings import OnlineConfig
from dmoe.data.dataset.files import open_shard
from dmoe.data.dataset.manifest import FILE, MISSING_ID, RARE_ID, Manifest, load_manifest
from dmoe.data.prepare.encode.encode_rows import TIME
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.parse.front_ends import AnyLog
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.containers import find_layers, unwrapped
from dmoe.data.prepare.source.log_files import MAX_ROW, find_files
from dmoe.data.prepare.source.raw_bytes import open_raw
from dmoe.online.ids import FIRST_ID, Change, FeatureIds, rows_of, update
from dmoe.online.vocabulary import folder_of, save_ids
from dmoe.online.windows.source import SourceFile
from dmoe.storage.paths import PATHS, inside, join

SPLIT = "train"
DATA = "data"
BLOCK_BYTES, PIECE_BYTES = 1 << 16, 4 << 20
MOST_RATE = 4.0
"""Largest learning-rate factor of a row by its frequency; the smallest is its reciprocal."""
Maps = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Window:
    """A prepared window, as plain data, on every rank.

    Attributes:
        folder, manifest: the data set of the window, with one split for all rows and the ids of the window's vocabulary.
        vocabulary: name of the folder with the ids after the window.
        test, train: feature -> table row of each id before and after the window; empty if ids are hashed.
        born: feature -> rows to initialize before training, ascending.
        figures: statistics of rows and ids, for `dmoe.online.watch`.
        replay: the previous good window, some of whose rows are trained again; its `train` maps ids to their present table rows.
        rates: feature -> (rows that the window changes, ascending; factors of these changes); empty without `rate_power`.
    """

    number: int
    folder: str
    manifest: Manifest
    vocabulary: str
    test: Maps
    train: Maps
    born: Maps
    figures: dict[str, Any]
    replay: "Window | None" = None
    rates: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.manifest.splits[SPLIT].rows


def window_folder(run: str, number: int) -> str:
    return inside(run, "windows", f"{number:06d}")


def prepare(
    run: str,
    number: int,
    files: Sequence[SourceFile],
    schema: Schema,
    settings: OnlineConfig,
    model: Manifest,
    before: str,
    ids: Mapping[str, FeatureIds],
    replay: int = 0,
    workers: int = 0,
) -> tuple[Window, dict[str, FeatureIds]]:
    """Makes the data set of a window and the ids after it. Continues work that a killed run had begun.

    Args:
        schema: schema for the first window (see `vocabulary.plain`); later windows use that of the previous vocabulary.
        model: manifest of the model; its cardinalities are the numbers of table rows.
        before: name of the vocabulary before the window, empty for the first one.
        ids: the ids in this vocabulary.
        replay: number of the previous good window, for `online.replay`; 0 for none.

    Raises:
        UserError: the files do not fit the schema, too many lines are malformed, or a file was changed meanwhile.
    """
    folder = inside(window_folder(run, number), DATA)
    hashed = bool(settings.ids.hash_size)
    words: dict[str, Any] = {"vocabulary": folder_of(run, before)} if before else {"schema": schema, "where": "the schema"}
    if before and not hashed:
        words["new_tokens"] = "append"
    elif hashed and not before:
        words |= {"ids": "hash", "hash_size": settings.ids.hash_size}
    made = preprocess(
        Options(
            [one.name for one in files],
            folder,
            min_count=1,
            split="1,0,0",
            max_bad_share=settings.windows.max_bad_share,
            workers=workers,
            **words,
        )
    ).manifest
    counts, figures = _look(folder, made)
    changes: dict[str, Change] = {}
    after: dict[str, FeatureIds] = {}
    if not hashed:
        own = {one.name: one.tokens for one in load_kept(folder).vocabularies}
        for feature in model.categorical:
            after[feature.name], changes[feature.name] = update(
                ids[feature.name], own[feature.name], counts[feature.name], number, feature.cardinality, settings.ids
            )
    name = f"{number:06d}"
    save_ids(folder_of(run, name), made, after)
    figures |= _of_ids(counts, changes)
    times = [seconds for one in files if one.bytes and (seconds := first_time(one.name, schema)) is not None]
    figures["time"] = min(times, default=None)
    moved_since = replay if replay and settings.replay else number
    window = Window(
        number,
        folder,
        made,
        name,
        {feature: change.test_N for feature, change in changes.items()},
        {feature: change.train_N for feature, change in changes.items()},
        {feature: change.born for feature, change in changes.items()},
        figures,
        _replayed(run, replay, after) if replay and settings.replay else None,
        {name: rates_of(one, moved_since, settings.rate_power) for name, one in after.items()} if settings.rate_power else {},
    )
    return window, after


def _replayed(run: str, number: int, ids: Mapping[str, FeatureIds]) -> Window | None:
    """An earlier window with the present table rows of its tokens; None if its data set was removed."""
    folder = inside(window_folder(run, number), DATA)
    if not PATHS.exists(join(folder, FILE)):
        return None
    kept, rows = load_kept(folder), {}
    for one in kept.vocabularies:
        rows[one.name] = np.concatenate([np.arange(FIRST_ID, dtype=np.int32), rows_of(ids[one.name], one.tokens)])
    return Window(number, folder, load_manifest(folder), "", {}, rows, {}, {})


def rates_of(ids: FeatureIds, since: int, power: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of tokens that were seen in window `since` or later, and (sightings / median sightings of all rows)^power, bounded."""
    place = np.flatnonzero(ids.last >= since)
    usual = float(np.median(ids.seen)) if len(place) else 1.0
    rate_n = (np.maximum(ids.seen[place], 1e-9) / max(usual, 1e-9)) ** power
    return place + FIRST_ID, rate_n.clip(1 / MOST_RATE, MOST_RATE).astype(np.float32)


def _look(folder: str, manifest: Manifest) -> tuple[dict[str, NDArray[np.int64]], dict[str, Any]]:
    """Reads a window: feature -> sightings of each id, [N]; and mean and deviation of each number, and the positive rate."""
    split = manifest.splits[SPLIT]
    counts = {one.name: np.zeros(one.cardinality, np.int64) for one in manifest.categorical}
    sums = {one.name: np.zeros(2) for one in manifest.dense}
    names = [*counts, *sums]
    for shard in split.shards:
        with open_shard(folder, shard) as file:
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, columns=names, use_threads=False)
                for name, count in counts.items():
                    column = table[name].combine_chunks()
                    flat = column.flatten() if pa.types.is_list(column.type) else column
                    count += np.bincount(flat.to_numpy(), minlength=len(count))
                for name, total in sums.items():
                    value_N = table[name].to_numpy().astype(np.float64)
                    total += (value_N.sum(), np.square(value_N).sum())
    means = {}
    for name, pair in sums.items():
        mean, square = (float(one) / split.rows for one in pair)
        means[name] = [mean, max(square - mean * mean, 0.0) ** 0.5]
    return counts, {"rate": split.positives / split.rows, "means": means}


def _of_ids(counts: Mapping[str, NDArray[np.int64]], changes: Mapping[str, Change]) -> dict[str, Any]:
    """The shares of missing values, of values unknown to the model before the window, and of the most frequent token, for each feature; and
    the numbers of born, evicted and waiting ids."""
    missing, unknown, top = {}, {}, {}
    for name, count_N in counts.items():
        total = max(int(count_N.sum()), 1)
        rare_N = changes[name].test_N == RARE_ID if name in changes else np.arange(len(count_N)) == RARE_ID
        missing[name] = float(count_N[MISSING_ID] / total)
        unknown[name] = float(count_N[rare_N].sum() / total)
        top[name] = float(count_N[RARE_ID + 1 :].max(initial=0) / total)
    told = {"missing": missing, "unknown": unknown, "top": top}
    if changes:
        ids = Counter[str]()
        for change in changes.values():
            ids.update(born=len(change.born), evicted=change.evicted, waiting=change.waiting)
        told["ids"] = dict(ids)
    return told


def remove_old(run: str, newest: int, keep: int, needed: int) -> None:
    """Removes the data of old windows, except the newest `keep` ones and `needed`, which may be replayed."""
    folder = inside(run, "windows")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.isdigit() and int(name) <= newest - keep and int(name) != needed:
            shutil.rmtree(inside(folder, name), ignore_errors=True)


def first_time(path: str, schema: Schema) -> float | None:
    """The time of the first well-formed row of a file, in seconds since 1970; None if the schema has no time or the file no row.

    Raises:
        UserError: the file does not fit the schema.
    """
    if schema.time is None or schema.time.format is None:
        return None
    (file, *_), read, labelled = find_files([path], schema, "the schema")
    front = AnyLog(read, labelled, False, BLOCK_BYTES)
    for part in (part for _, piece, _ in front.pieces(file) for part in front.parts(piece)):
        for batch in front.encode(file, part).batches:
            if batch.num_rows:
                return float(batch.column(TIME)[0].as_py())
    return None


def count_rows(path: str, schema: Schema) -> int:
    """The approximate number of rows of a file. Text files are counted by line ends, which values may contain too."""
    if schema.format == "parquet":
        with PATHS.open(path, "rb") as file:
            return int(pq.ParquetFile(file).metadata.num_rows)
    layers, start = find_layers(path, path, MAX_ROW + 1)
    count = 0
    if start:
        with open_raw(path) as file:
            stream = unwrapped(path, file, layers)
            while piece := stream.read(PIECE_BYTES):
                count += piece.count(b"\n")
    return count
