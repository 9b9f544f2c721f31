"""The truth of a synthesized log: rows are drawn by counter-based hashing, and their click logits are computed from them.

The logit has four groups of terms, so that kinds of experts differ in what they can learn: first-order effects of tokens; inner products of
latent vectors of field pairs (as in a factorization machine); signed crosses of two, three and four fields (bounded degree); smooth
functions of the integers, alone, in pairs, and with a slope that depends on a token. The effects of a token are hashes of (seed, term,
token), so nothing is stored. Most of the signal is in the frequent tokens of each Zipf distribution.

Shapes: N rows, 13 integers, 26 tokens, T terms.
"""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dmoe.processes.compiled import compiled
from dmoe.testing.criteo import TOKENS

KAGGLE_CARDINALITY = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652, 2173, 4),
    *(7046547, 18, 15, 286181, 105, 142572),
)
TOKEN_MISSING = (
    *(0.0, 0.0, 0.034, 0.034, 0.0, 0.12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.034, 0.0, 0.0, 0.0, 0.034, 0.0, 0.0, 0.44, 0.44),
    *(0.034, 0.76, 0.0, 0.034, 0.44, 0.44),
)
INTEGER_MISSING = (0.45, 0.0, 0.21, 0.22, 0.026, 0.22, 0.043, 0.0005, 0.043, 0.45, 0.043, 0.77, 0.22)
# (mean, spread, shift) of floor(exp(mean + spread * normal)) - shift, with medians and tails like the Kaggle log.
INTEGER_SHAPE = np.array(
    [
        *[(0.8, 1.1, 1), (1.8, 2.0, 3), (1.9, 1.4, 1), (1.7, 0.9, 1), (7.9, 1.9, 1), (3.5, 1.6, 1), (1.4, 1.5, 1), (2.1, 1.0, 1)],
        *[(3.7, 1.4, 1), (0.4, 0.5, 1), (0.8, 0.9, 1), (0.3, 0.9, 1), (1.7, 1.0, 1)],
    ]
)

FIRST_ORDER = np.array([TOKENS.index(name) for name in ("C1", "C2", "C5", "C7", "C8", "C10", "C11", "C14", "C15", "C17", "C18", "C26")])
PAIRS = np.array([(1, 7), (4, 13), (16, 5), (8, 0), (22, 1), (13, 16)])
CROSSES = np.array([(5, 8, -1, -1), (13, 22, -1, -1), (5, 8, 16, -1), (13, 8, 22, -1), (16, 22, 5, -1), (5, 13, 8, 16)])
SMOOTH = 7
TERMS = len(FIRST_ORDER) + len(PAIRS) + len(CROSSES) + SMOOTH
SHARE_OF_VARIANCE = (
    ("first-order", len(FIRST_ORDER), 0.32),
    ("pairs", len(PAIRS), 0.25),
    ("crosses", len(CROSSES), 0.2),
    ("smooth", SMOOTH, 0.23),
)
LATENT_DIM = 4


@partial(compiled, inline="always")
def mix(x: np.uint64) -> np.uint64:
    """The finalizer of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@partial(compiled, inline="always")
def hashed(seed: np.uint64, stream: int, key: np.uint64) -> np.uint64:
    """A 64-bit hash of the three arguments."""
    return mix(mix(seed + np.uint64(stream + 1) * np.uint64(0x9E3779B97F4A7C15)) ^ (key * np.uint64(0xD1342543DE82EF95)))


@partial(compiled, inline="always")
def uniform(bits: np.uint64) -> float:
    return (bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@partial(compiled, inline="always")
def normal(bits: np.uint64) -> float:
    """An approximately standard normal number in -3.5 .. 3.5: the scaled sum of four 16-bit uniform numbers."""
    low = np.uint64(0xFFFF)
    total = (bits & low) + ((bits >> np.uint64(16)) & low) + ((bits >> np.uint64(32)) & low) + (bits >> np.uint64(48))
    return (total / 65535.0 - 2.0) * 1.7320508


@compiled
def draw_rows(
    seed: np.uint64,
    first: int,
    cardinality: NDArray[np.int64],
    token_missing: NDArray[np.float64],
    integer_missing: NDArray[np.float64],
    shape: NDArray[np.float64],
    integers: NDArray[np.int64],
    tokens: NDArray[np.int64],
) -> None:
    """Fills `integers` [N, 13] and `tokens` [N, 26] for the rows first, first + 1, ...; missing values are MISSING (-2^40)."""
    for n in range(len(integers)):
        row = np.uint64(first + n)
        for i in range(13):
            integers[n, i] = -(1 << 40)
            if uniform(hashed(seed, i, row)) >= integer_missing[i]:
                value = math.exp(shape[i, 0] + shape[i, 1] * normal(hashed(seed, 20 + i, row)))
                integers[n, i] = max(int(value) - int(shape[i, 2]), -2 if i == 1 else 0)
        # In the real log, the columns of two groups are missing together.
        together_small = uniform(hashed(seed, 40, row))
        together_large = uniform(hashed(seed, 41, row))
        for c in range(26):
            tokens[n, c] = -(1 << 40)
            share = token_missing[c]
            chance = 1.0
            if share == 0.44:
                chance = together_large
            elif share == 0.034:
                chance = together_small
            elif share > 0:
                chance = uniform(hashed(seed, 50 + c, row))
            if chance >= share:
                # Draws from a Zipf distribution with exponent 1.1, by inverting the continuous one on [1, cardinality + 1).
                tail = (cardinality[c] + 1.0) ** -0.1
                rank = int((1.0 - uniform(hashed(seed, 80 + c, row)) * (1.0 - tail)) ** -10.0)
                tokens[n, c] = np.int64(hashed(seed, 120 + c, np.uint64(rank)) & np.uint64(0xFFFFFFFF))


@compiled
def compute_terms(
    seed: np.uint64,
    integers: NDArray[np.int64],
    tokens: NDArray[np.int64],
    first_order: NDArray[np.int64],
    pairs: NDArray[np.int64],
    crosses: NDArray[np.int64],
    terms: NDArray[np.float64],
) -> None:
    """Fills `terms` [N, T] with the unscaled terms of the logit."""
    t = np.zeros(13)
    for n in range(len(terms)):
        k = 0
        for c in first_order:
            terms[n, k] = normal(hashed(seed, 200 + c, np.uint64(tokens[n, c])))
            k += 1
        for p in range(len(pairs)):
            a, b = pairs[p]
            terms[n, k] = 0.0
            for d in range(LATENT_DIM):
                left = normal(hashed(seed, 300 + 8 * p + d, np.uint64(tokens[n, a])))
                terms[n, k] += left * normal(hashed(seed, 400 + 8 * p + d, np.uint64(tokens[n, b])))
            k += 1
        for x in range(len(crosses)):
            sign = 1.0
            for c in crosses[x]:
                if c >= 0:
                    sign *= 1.0 if hashed(seed, 500 + 32 * x + c, np.uint64(tokens[n, c])) & np.uint64(1) else -1.0
            terms[n, k] = sign
            k += 1
        for i in range(13):
            t[i] = 0.0
            if integers[n, i] > -(1 << 40):
                size = math.log1p(abs(integers[n, i]))
                t[i] = size if integers[n, i] >= 0 else -size
        terms[n, k] = math.sin(1.5 * t[1])
        terms[n, k + 1] = math.exp(-0.5 * (t[4] - 8.0) ** 2)
        terms[n, k + 2] = t[5] / (1.0 + t[5]) + 0.3 * (t[8] - 3.5) ** 2 / (1.0 + (t[8] - 3.5) ** 2)
        terms[n, k + 3] = math.tanh(t[6] - 1.5) * math.tanh(t[7] - 2.0)
        terms[n, k + 4] = math.cos(t[2] + t[12])
        terms[n, k + 5] = -1.0 if integers[n, 0] <= -(1 << 40) else math.sqrt(t[0])
        slope = normal(hashed(seed, 900, np.uint64(tokens[n, 13])))
        terms[n, k + 6] = slope * math.tanh(t[10] - 0.8)


@compiled
def draw_labels(seed: np.uint64, first: int, probability: NDArray[np.float64], label: NDArray[np.uint8]) -> None:
    """Sets label [N] to 1 with the given probability [N], by a hash of the row."""
    for n in range(len(label)):
        label[n] = uniform(hashed(seed, 150, np.uint64(first + n))) < probability[n]
