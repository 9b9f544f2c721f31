"""Product quantisation against brute force, and what counts do to it.

Shapes: N rows, K numbers of a block.
"""

import numpy as np
import pytest

from dmoe.model.embedding.product_quantization import (
    BLOCK,
    CENTROIDS,
    OWN_ROWS,
    codebooks_of,
    encode,
    learn,
    nearest,
    quantised_bytes,
    weighted_k_means,
)
from dmoe.serve.export.quantize import _sample, learn_codebooks


def rows(count: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, columns)).astype(np.float32)


def decoded(codes: np.ndarray, codebook: np.ndarray, dims: list[int]) -> np.ndarray:
    """Number by number."""
    out = []
    for row in codes:
        numbers, block = [], 0
        for dim in dims:
            of_set = []
            while len(of_set) < dim:
                of_set += codebook[block, row[block]].tolist()
                block += 1
            numbers += of_set[:dim]
        out.append(numbers)
    return np.array(out)


def test_the_nearest_centroid_is_the_nearest():
    x, centroids = rows(9000, 3), rows(37, 3, 1)
    distances = ((x[:, None].astype(np.float64) - centroids) ** 2).sum(2)
    code, error = nearest(x, centroids)
    np.testing.assert_array_equal(code, distances.argmin(1))
    np.testing.assert_allclose(error, distances.min(1), atol=1e-12)


@pytest.mark.parametrize("dims", [[8], [6, 6], [3, 5, 4]])
def test_few_different_rows_are_kept_exactly(dims):
    x = np.repeat(rows(200, sum(dims)), 4, axis=0)
    codebook = learn(x, np.ones(len(x)), dims)
    codes = encode(x, codebook, dims)
    assert codes.shape == (800, sum(-(-dim // BLOCK) for dim in dims))
    np.testing.assert_allclose(decoded(codes, codebook, dims), x, atol=1e-6)


def test_every_round_of_k_means_lowers_the_weighted_error_below_that_of_random_centroids():
    x, weight = rows(3000, 4), np.random.default_rng(2).exponential(size=3000) ** 4 + 1e-3
    found = weighted_k_means(x, weight, 32)
    errors = [
        float((nearest(x, x[np.random.default_rng(seed).choice(3000, 32, replace=False, p=weight / weight.sum())])[1] * weight).sum())
        for seed in range(20)
    ]
    assert float((nearest(x, found)[1] * weight).sum()) < 0.8 * min(errors)
    # A fixed point of Lloyd's algorithm is the weighted mean of its rows; ten rounds are near one.
    code, _ = nearest(x, found)
    means = np.stack([np.average(x[code == number], axis=0, weights=weight[code == number]) for number in range(32)])
    assert np.abs(means - found).max() < 0.2


def test_rows_that_are_looked_up_more_are_kept_better():
    x, weight = rows(5000, 8), np.ones(5000)
    weight[:300] = 1000
    even, counted = (learn(x, w, [8]) for w in (np.ones(5000), weight))
    errors = [((decoded(encode(x[:300], book, [8]), book, [8]) - x[:300]) ** 2).mean() for book in (even, counted)]
    assert errors[1] < errors[0] / 3


def test_large_features_have_codebooks_of_their_own():
    assert codebooks_of([5, OWN_ROWS, 7, OWN_ROWS + 1]) == [0, 1, 0, 2]
    assert codebooks_of([OWN_ROWS, OWN_ROWS]) == [0, 1]
    assert codebooks_of([3]) == [0]
    assert quantised_bytes([100_000, 5], [16, 6]) == 100_005 * 6 + 2 * 6 * CENTROIDS * BLOCK * 4


@pytest.mark.parametrize(("count", "room"), [(10, 16), (16, 16), (1000, 16), (7, 1)])
def test_a_sample_stands_for_all_rows(count, room):
    picked, times = _sample(count, room)
    assert len(set(picked.tolist())) == len(picked) <= max(room, 2)
    assert (np.diff(picked) > 0).all()
    assert times.sum() == count


def test_codebooks_are_learned_from_a_features_own_rows_in_chunks_of_any_size():
    features = [("a", 100), ("b", OWN_ROWS + 50), ("c", 60)]
    tables = {name: rows(40, 4, seed)[np.arange(count) % 40] for seed, (name, count) in enumerate(features)}

    def chunks():
        for name, count in features:
            for low in range(0, count, 333):
                yield tables[name][low : low + 333]

    books = learn_codebooks(features, [4], chunks, {"b": np.arange(OWN_ROWS + 50)[::-1] + 1.0})
    assert books.shape == (2, 1, CENTROIDS, BLOCK)
    for name, book in (("a", 0), ("b", 1), ("c", 0)):
        np.testing.assert_allclose(decoded(encode(tables[name], books[book], [4]), books[book], [4]), tables[name], atol=1e-6)
