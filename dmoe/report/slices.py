"""Slices of the test rows of a run: by the values of a feature, by the count of an id in training, or by the position in the split.

Shapes: N test rows, V ids of a multi-valued feature.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.dataset.describe import kept_counts
from dmoe.data.dataset.files import verify_shard
from dmoe.data.dataset.manifest import RARE_ID, load_manifest
from dmoe.data.dataset.reading.bags import Bags, concatenate
from dmoe.data.dataset.reading.epoch_order import order_name
from dmoe.errors import UserError, nearest
from dmoe.report.runs import Run
from dmoe.storage.paths import PATHS, join

FREQUENCIES = (10, 100, 1000, 10_000, 100_000)
"""Bounds of the slices by the count of an id."""


MIN_OF_A_LABEL = 20


def has_auc(label_N: np.ndarray) -> bool:
    """Whether a slice has enough rows of each label for a meaningful AUC."""
    return bool(min(label_N.sum(), (~label_N).sum()) >= MIN_OF_A_LABEL)


def groups(column_N: np.ndarray | Bags, values: int) -> list[tuple[str, np.ndarray]]:
    """(value, rows [N] bool) for each slice. For a multi-valued feature, a slice has all rows with an id: slices may overlap."""
    if isinstance(column_N, Bags):
        row_V = np.repeat(np.arange(len(column_N)), column_N.lengths)
        held_V = np.unique(np.stack([column_N.values, row_V]), axis=1)
        return _slices_of(held_V[0], held_V[1], len(column_N), values)
    if column_N.dtype.kind == "f":
        edges = np.unique(np.quantile(column_N, np.linspace(0, 1, values + 1)))
        bins_N = np.clip(np.searchsorted(edges, column_N, "right") - 1, 0, max(len(edges) - 2, 0))
        return [(f"{edges[i]:.3g} .. {edges[min(i + 1, len(edges) - 1)]:.3g}", bins_N == i) for i in range(max(len(edges) - 1, 1))]
    return _slices_of(column_N, np.arange(len(column_N)), len(column_N), values)


def _slices_of(id_V: np.ndarray, row_V: np.ndarray, rows: int, values: int) -> list[tuple[str, np.ndarray]]:
    """Slices of the most frequent ids, and of the rows without any of these ids. Each pair (id, row) must occur once."""
    ids, counts = np.unique(id_V, return_counts=True)
    groups, rest_N = [], np.ones(rows, bool)
    for value in ids[np.argsort(-counts, kind="stable")][:values]:
        here_N = np.zeros(rows, bool)
        here_N[row_V[id_V == value]] = True
        rest_N &= ~here_N
        groups.append((f"id {value}{ {0: ' (missing)', 1: ' (rare)'}.get(int(value), '') }", here_N))
    return [*groups, ("all others", rest_N)] if rest_N.any() else groups


def column_of_test(run: Run, feature: str, order: str) -> np.ndarray | Bags:
    """Values of a feature in the order of the test rows of a run; bags for a multi-valued feature.

    Args:
        order: identifies the rows that the run was tested on.

    Raises:
        UserError: no such feature, or the run was tested on other data.
    """
    folder, split = run.metrics.get("data", run.config.data.path), run.metrics.get("split", run.config.data.test_split)
    manifest = load_manifest(folder)
    names = [*(one.name for one in manifest.dense), *(one.name for one in manifest.categorical)]
    if feature not in names:
        raise UserError(f"--slice {feature}: no such feature in {folder}{nearest(feature, names)}")
    held = manifest.split(split)
    if order_name(held.shards) != order:
        raise UserError(
            f"--slice {feature}: {folder} has other rows in split '{split}' than those that {run.path} was tested on; evaluate both runs"
            " again on the data as it is now, with dmoe evaluate --output NAME.json, and compare with --evaluation NAME"
        )
    parts: list[Any] = []
    for shard in held.shards:
        verify_shard(folder, shard, held.labelled)
        with PATHS.open(join(folder, shard.path), "rb") as file:
            parts += [_values(chunk) for chunk in pq.read_table(file, columns=[feature]).column(feature).chunks]
    return concatenate(parts) if isinstance(parts[0], Bags) else np.concatenate(parts)


def _values(chunk: pa.Array) -> np.ndarray | Bags:
    if not pa.types.is_list(chunk.type):
        return np.asarray(chunk.to_numpy())
    offsets = chunk.offsets.to_numpy().astype(np.int64)
    return Bags(chunk.flatten().to_numpy(), offsets - offsets[0])


def frequency_groups(run: Run, feature: str, order: str) -> list[tuple[str, np.ndarray]]:
    """(name, rows [N] bool) for slices by the vocabulary's count of the id of a row. For a row with several ids, the rarest one is used.

    Raises:
        UserError: as for `column_of_test`, or the data set has no counts of this feature.
    """
    column_N = column_of_test(run, feature, order)
    folder = run.metrics.get("data", run.config.data.path)
    manifest = load_manifest(folder)
    counts = next(
        (found for one, found in zip(manifest.categorical, kept_counts(folder, manifest), strict=True) if one.name == feature), None
    )
    if counts is None:
        raise UserError(f"--frequency {feature}: {folder} keeps no vocabulary of it, so that nobody knows how often an id was seen")
    # The ids of missing and rare values have no count of a single value: -2 and -1 mark them.
    seen_I = np.concatenate([np.arange(RARE_ID + 1) - RARE_ID - 1, counts])
    none = np.iinfo(np.int64).max
    if isinstance(column_N, Bags):
        seen_N = np.full(len(column_N), none)
        np.minimum.at(seen_N, np.repeat(np.arange(len(column_N)), column_N.lengths), seen_I[column_N.values])
    else:
        seen_N = seen_I[column_N]
    bounds = [0, *FREQUENCIES, none]
    named = [("missing", seen_N == -2), ("rare", seen_N == -1)]
    for low, high in pairwise(bounds):
        name = f"seen {low:,} times or more" if high == none else f"seen {low or 1:,} to {high - 1:,} times"
        named.append((name, (seen_N >= low) & (seen_N < high)))
    return [(name, rows_N) for name, rows_N in [*named, ("no id", seen_N == none)] if rows_N.any()]


def place_groups(rows: int, parts: int) -> list[tuple[str, np.ndarray]]:
    """(name, rows [N] bool) for equal parts of the test rows in the order of the files: the order of time after a split by time."""
    part_N = np.arange(rows) * parts // rows
    return [(f"part {part + 1} of {parts}", part_N == part) for part in range(min(parts, rows))]
