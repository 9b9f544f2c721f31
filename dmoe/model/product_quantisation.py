"""Product quantisation of embedding rows (Jegou et al. 2011): a byte for every few numbers of a row. No torch.

Shapes: N rows, K numbers of a block, C columns of a row, J blocks of a row, G codebooks.
"""

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK, CENTROIDS = 4, 256
"""Numbers of a row that one byte stands for, and what it chooses from. Fewer numbers a byte: nearer, and larger."""
OWN_ROWS = 2048
"""A feature of so many rows has codebooks of its own, of 256 * C numbers; smaller ones share theirs."""
SAMPLE, ROUNDS = 16384, 10
PIECE = 8192


def codebooks_of(rows: Sequence[int]) -> list[int]:
    """The number of each feature's codebooks, given its rows: 0, 1, ... without a gap."""
    own = [count >= OWN_ROWS for count in rows]
    shared = int(not all(own))
    return [shared + sum(own[:index]) if has_own else 0 for index, has_own in enumerate(own)]


def blocks_of(dims: Sequence[int]) -> Iterator[slice]:
    """Columns of each block of rows in which table sets of these dims lie side by side; the last block of a set may be narrower."""
    start = 0
    for dim in dims:
        for low in range(start, start + dim, BLOCK):
            yield slice(low, min(low + BLOCK, start + dim))
        start += dim


def quantised_bytes(rows: Sequence[int], dims: Sequence[int]) -> int:
    """Bytes of features of so many rows: codes and codebooks."""
    blocks = len(list(blocks_of(dims)))
    return sum(rows) * blocks + (max(codebooks_of(rows)) + 1) * blocks * CENTROIDS * BLOCK * 4


def learn(x_NC: np.ndarray, weight_N: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """The codebook of some rows: weighted k-means of every block, [J, CENTROIDS, BLOCK] float32; narrower blocks are padded with 0.

    Args:
        weight_N: above 0: how often a row is looked up. The mean squared error of a lookup is what the centroids lower.
    """
    out = np.zeros((len(list(blocks_of(dims))), CENTROIDS, BLOCK), np.float32)
    for number, columns in enumerate(blocks_of(dims)):
        out[number, :, : columns.stop - columns.start] = weighted_k_means(x_NC[:, columns], weight_N, CENTROIDS, seed=number)
    return out


def encode(x_NC: np.ndarray, codebook: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """The nearest centroid of every block, [N, J] uint8."""
    out = np.empty((len(x_NC), len(codebook)), np.uint8)
    for number, columns in enumerate(blocks_of(dims)):
        out[:, number] = nearest(x_NC[:, columns], codebook[number][:, : columns.stop - columns.start])[0]
    return out


def weighted_k_means(x_NK: np.ndarray, weight_N: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` centroids [count, K] float32 of Lloyd's algorithm, from draws by weight; a function of its arguments alone.

    A centroid that nobody is nearest to moves to where the weighted error is largest. With no more different rows than centroids, each
    of them is a centroid.
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
    """(the nearest centroid's number, its squared distance) of each row, a piece of the rows at a time."""
    code_N, error_N = np.empty(len(x_NK), np.int64), np.empty(len(x_NK))
    norms = (centroids.astype(np.float64) ** 2).sum(1)
    for low in range(0, len(x_NK), PIECE):
        x = x_NK[low : low + PIECE].astype(np.float64)
        distance = norms - 2 * (x @ centroids.T.astype(np.float64))
        code = distance.argmin(1)
        code_N[low : low + PIECE] = code
        error_N[low : low + PIECE] = np.maximum(distance[np.arange(len(x)), code] + (x**2).sum(1), 0)
    return code_N, error_N
