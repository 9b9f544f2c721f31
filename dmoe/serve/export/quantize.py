"""Number formats of a scorer's rows: fp16, int8, and product quantization, whose codebooks are learned from the tables of a checkpoint,
weighted by how often a row is looked up. It needs no torch.

Shapes: N rows of a feature's tables, C columns of all its sets, S sets, J blocks of a row.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from dmoe.data.dataset.describe import kept_counts
from dmoe.data.dataset.manifest import RARE_ID, Manifest
from dmoe.errors import UserError
from dmoe.model.embedding.product_quantization import SAMPLE, codebooks_of, encode, learn
from dmoe.names import show

Features = Sequence[tuple[str, int]]
"""(name, number of rows) of each feature."""


def quantised(chunks: Iterator[np.ndarray], dims: list[int], scales: list[np.ndarray]) -> Iterator[np.ndarray]:
    for chunk_NC in chunks:
        quantised_NC, scale_NS = quantise(chunk_NC, dims)
        scales.append(scale_NS)
        yield quantised_NC


def quantise(rows_NC: np.ndarray, dims: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int8 in -127 .. 127, and a float32 scale for each row and set.

    The error of a number is at most half a scale, which is the largest number of the row and set / 254.
    """
    out_NC, scale_NS, start = np.empty(rows_NC.shape, np.int8), np.empty((len(rows_NC), len(dims)), np.float32), 0
    for number, dim in enumerate(dims):
        part = rows_NC[:, start : start + dim]
        scale = np.abs(part).max(1) / 127
        scale_NS[:, number] = scale
        out_NC[:, start : start + dim] = np.rint(part / np.where(scale > 0, scale, 1)[:, None])
        start += dim
    return out_NC, scale_NS


def as_half(rows_NC: np.ndarray, folder: str) -> np.ndarray:
    largest = float(np.abs(rows_NC).max(initial=0))
    if largest > np.finfo(np.float16).max:
        raise UserError(f"{folder}: an embedding of {largest:.3g} does not fit fp16; export fp32 or int8")
    return rows_NC.astype(np.float16)


def row_weights(data: str, manifest: Manifest, features: Sequence[str]) -> dict[str, np.ndarray]:
    """How often each id of a feature occurred, by the counts in the run's data set; no entry for a feature without counts."""
    found: dict[str, np.ndarray] = {}
    try:
        for feature, counts in zip(manifest.categorical, kept_counts(data, manifest), strict=True):
            if counts is not None and feature.name in features:
                own = max(1 - feature.missing_share - feature.rare_share, 1e-9)
                others = np.array([feature.missing_share, feature.rare_share]) * (counts.sum() / own)
                assert len(others) == RARE_ID + 1
                found[feature.name] = np.maximum(np.concatenate([others, counts]), 1.0)
    except UserError as error:
        show(f"{data}: its counts are not those of the run, so all ids weigh alike: {error}", sys.stderr)
        return {}
    if missing := [name for name in features if name not in found]:
        show(f"{data}: no counts of {len(missing)} feature(s), such as {missing[0]}: their ids weigh alike", sys.stderr)
    return found


def learn_codebooks(
    features: Features, dims: Sequence[int], chunks: Callable[[], Iterator[np.ndarray]], weights: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Learns codebooks, [G, J, CENTROIDS, BLOCK] float32, each from a sample of its rows.

    Half of a sample are the first rows, which belong to the most frequent ids. The other half is drawn from the remaining rows, and a drawn
    row also has the weight of those that were not drawn.

    Args:
        chunks: reads the rows, feature after feature, in chunks [N, C] of one feature each.
    """
    books = codebooks_of([count for _, count in features])
    taken: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(max(books) + 1)]
    reading = chunks()
    for (name, count), book in zip(features, books, strict=True):
        room = SAMPLE // books.count(book)
        picked_P, times_P = _sample(count, room)
        weight_P = weights[name][picked_P] * times_P if name in weights else times_P
        start, rows = 0, []
        while start < count:
            chunk_NC = next(reading)
            here = picked_P[(picked_P >= start) & (picked_P < start + len(chunk_NC))]
            rows.append(chunk_NC[here - start])
            start += len(chunk_NC)
        taken[book].append((np.concatenate(rows), weight_P))
    learned = [learn(np.concatenate([x for x, _ in some]), np.concatenate([w for _, w in some]), dims) for some in taken]
    return np.stack(learned)


def _sample(count: int, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws rows of a feature.

    Returns:
        the row numbers, ascending; and for each the number of rows that it represents.
    """
    first = min(count, max(room // 2, 1))
    rest = min(count - first, max(room - first, 1))
    if not rest:
        return np.arange(first), np.ones(first)
    # One row is drawn from each of `rest` equal ranges, so that memory does not grow with the table.
    edges = first + np.arange(rest + 1) * (count - first) // rest
    drawn = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    return np.concatenate([np.arange(first), drawn]), np.concatenate([np.ones(first), np.diff(edges).astype(np.float64)])


def encoded(features: Features, dims: Sequence[int], chunks: Iterator[np.ndarray], books: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the codes of the rows, [N, J] uint8, for each chunk."""
    for (_, count), book in zip(features, codebooks_of([count for _, count in features]), strict=True):
        done = 0
        while done < count:
            chunk_NC = next(chunks)
            done += len(chunk_NC)
            yield encode(chunk_NC, books[book], dims)
