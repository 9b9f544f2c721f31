"""Product quantization of embedding rows (Jegou et al. 2011): one byte for each block of a row. Does not import torch.

Shapes: N rows, K numbers of a block, C columns of a row, J blocks of a row, G codebooks.
"""

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK, CENTROIDS = 4, 256
"""Numbers of a row that one byte encodes, and centroids that it selects from. Smaller blocks are more accurate, but need more bytes."""
OWN_ROWS = 2048
"""A feature with at least so many rows has its own codebook of 256 * C numbers. Smaller features share one."""
SAMPLE, ROUNDS = 16384, 10
PIECE = 8192


def codebooks_of(rows: Sequence[int]) -> list[int]:
    """Index of the codebook of each feature, given its number of rows: 0, 1, ... without a gap."""
    own = [count >= OWN_ROWS for count in rows]
    shared = int(not all(own))
    return [shared + sum(own[:index]) if has_own else 0 for index, has_own in enumerate(own)]


def blocks_of(dims: Sequence[int]) -> Iterator[slice]:
    """Columns of each block, for rows that hold table sets of these dims side by side. The last block of a set may be narrower."""
    start = 0
    for dim in dims:
        for low in range(start, start + dim, BLOCK):
            yield slice(low, min(low + BLOCK, start + dim))
        start += dim


def quantised_bytes(rows: Sequence[int], dims: Sequence[int]) -> int:
    """Bytes of codes and codebooks for features with these numbers of rows."""
    blocks = len(list(blocks_of(dims)))
    return sum(rows) * blocks + (max(codebooks_of(rows)) + 1) * blocks * CENTROIDS * BLOCK * 4


def learn(x_NC: np.ndarray, weight_N: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Learns a codebook by weighted k-means for each block: [J, CENTROIDS, BLOCK] float32. Narrower blocks are padded with 0.

    Args:
        weight_N: how often each row is looked up, > 0. The centroids minimize the mean squared error of a lookup.
    """
    out = np.zeros((len(list(blocks_of(dims))), CENTROIDS, BLOCK), np.float32)
    for number, columns in enumerate(blocks_of(dims)):
        out[number, :, : columns.stop - columns.start] = weighted_k_means(x_NC[:, columns], weight_N, CENTROIDS, seed=number)
    return out


def encode(x_NC: np.ndarray, codebook: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Index of the nearest centroid for each block, [N, J] uint8."""
    out = np.empty((len(x_NC), len(codebook)), np.uint8)
    for number, columns in enumerate(blocks_of(dims)):
        out[:, number] = nearest(x_NC[:, columns], codebook[number][:, : columns.stop - columns.start])[0]
    return out


def weighted_k_means(x_NK: np.ndarray, weight_N: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` centroids [count, K] float32 by Lloyd's algorithm. Initial centroids are drawn by weight. The result is deterministic.

    A centroid that is not the nearest one of any row moves to the row with the largest weighted error. If there are no more distinct rows
    than centroids, each distinct row is a centroid.
    """
    x_NK, weight_N = x_NK.astype(np.float64), weight_N.astype(np.float64)
    distinct, where = np.unique(x_NK, axis=0, return_inverse=True)
    if len(distinct) <= count:
        return np.concatenate([distinct, np.repeat(distinct[:1], count - len(distinct), 0)]).astype(np.float32)
    weight_D = np.bincount(where.ravel(), weights=weight_N)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(distinct), count, replace=False, p=weight_D / weight_D.sum())
    centroids = distinct[np.sort(drawn)]
    for _ in range(ROUNDS):
        code_D, error_D = nearest(distinct, centroids)
        mass = np.bincount(code_D, weights=weight_D, minlength=count)
        sums = [np.bincount(code_D, weights=weight_D * column, minlength=count) for column in distinct.T]
        centroids = np.where(mass[:, None] > 0, np.stack(sums, 1) / np.maximum(mass, 1e-300)[:, None], centroids)
        if len(empty := np.flatnonzero(mass == 0)):
            centroids[empty] = distinct[np.argsort(-error_D * weight_D, kind="stable")[: len(empty)]]
    return centroids.astype(np.float32)


def nearest(x_NK: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index of the nearest centroid, squared distance to it) for each row. Works on PIECE rows at a time to bound the memory."""
    code_N, error_N = np.empty(len(x_NK), np.int64), np.empty(len(x_NK))
    norms = (centroids.astype(np.float64) ** 2).sum(1)
    for low in range(0, len(x_NK), PIECE):
        x = x_NK[low : low + PIECE].astype(np.float64)
        distance = norms - 2 * (x @ centroids.T.astype(np.float64))
        code = distance.argmin(1)
        code_N[low : low + PIECE] = code
        error_N[low : low + PIECE] = np.maximum(distance[np.arange(len(x)), code] + (x**2).sum(1), 0)
    return code_N, error_N
