"""Raw logs in Criteo's format with a known truth (dmoe.testing.planted), written in chunks, so that memory does not grow with the log."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dmoe.data.progress import Progress
from dmoe.errors import UserError
from dmoe.processes.compiled import compiled
from dmoe.storage.paths import write_output
from dmoe.testing import planted
from dmoe.testing.malformed import plant_bad_lines

MISSING = -(1 << 40)
PILOT_ROWS, PILOT_FIRST = 40_000, 1 << 48
"""Scale and intercept are computed from a pilot sample, whose row numbers are far beyond those of any log."""
BINS = 1 << 16


@dataclass(frozen=True)
class Planted:
    """The click logit is `intercept + terms . weights`; both depend only on (seed, scale, targets)."""

    seed: np.uint64
    cardinality: NDArray[np.int64]
    weights: NDArray[np.float64]
    intercept: float


@dataclass
class Chunk:
    """Rows of a log: `text` uint8, `probability` [N] float64, `label` [N] uint8."""

    text: NDArray[np.uint8]
    probability: NDArray[np.float64]
    label: NDArray[np.uint8]


@dataclass(frozen=True)
class Truth:
    """Figures of rows. Bayes-optimal figures are those of a model that knows the true probabilities."""

    rows: int
    positive_rate: float
    bayes_auc: float
    expected_bayes_auc: float
    bayes_logloss: float


@dataclass(frozen=True)
class Summary(Truth):
    """Figures of a written log."""

    bytes: int


class Tally:
    """Adds up the figures of `Truth` over rows, by bins of the true probability."""

    def __init__(self) -> None:
        self.drawn, self.expected = np.zeros((2, BINS)), np.zeros((2, BINS))
        self.loss, self.rows = 0.0, 0

    def add(self, p_N: NDArray[np.float64], label_N: NDArray[Any]) -> None:
        bins_N = np.minimum((p_N * BINS).astype(np.int64), BINS - 1)
        for label in (0, 1):
            self.drawn[label] += np.bincount(bins_N[label_N == label], minlength=BINS)
            self.expected[label] += np.bincount(bins_N, weights=p_N if label else 1 - p_N, minlength=BINS)
        self.loss -= float(np.log(np.where(label_N == 1, p_N, 1 - p_N)).sum())
        self.rows += len(p_N)

    def truth(self) -> Truth:
        """The AUC of the rows is NaN if they have one label only."""
        both = self.drawn.sum(1).min() > 0
        auc = auc_of_bins(self.drawn[1], self.drawn[0]) if both else float("nan")
        expected = auc_of_bins(self.expected[1], self.expected[0])
        return Truth(self.rows, float(self.drawn[1].sum() / self.rows), auc, expected, self.loss / self.rows)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x))


def auc_of_bins(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """AUC from the weights of positives and negatives in ascending order of the score; equal bins count half."""
    below = np.cumsum(negative) - negative
    return float(np.sum(positive * (below + 0.5 * negative)) / (positive.sum() * negative.sum()))


def _weighted(terms: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    # Not `terms @ weights`, because the order of additions in BLAS may depend on the number of rows.
    return np.asarray(np.einsum("nt,t->n", terms, weights))


def _rows_and_terms(truth_seed: np.uint64, cardinality: NDArray[np.int64], first: int, rows: int) -> tuple[Any, Any, Any]:
    integers, tokens = np.empty((rows, 13), np.int64), np.empty((rows, 26), np.int64)
    missing = np.array(planted.TOKEN_MISSING), np.array(planted.INTEGER_MISSING)
    planted.draw_rows(truth_seed, first, cardinality, *missing, planted.INTEGER_SHAPE, integers, tokens)
    terms = np.empty((rows, planted.TERMS))
    planted.compute_terms(truth_seed, integers, tokens, planted.FIRST_ORDER, planted.PAIRS, planted.CROSSES, terms)
    return integers, tokens, terms


def plant(seed: int, scale: float = 1.0, positive_rate: float = 0.25, bayes_auc: float = 0.81) -> Planted:
    """Computes weights and intercept for which a pilot sample has the given positive rate and expected Bayes-optimal AUC.

    Args:
        scale: factor of the cardinalities of the Kaggle log; a column has at least 3 tokens.
    """
    key = np.uint64(seed % 2**64)
    cardinality = np.maximum((np.array(planted.KAGGLE_CARDINALITY) * scale).astype(np.int64), 3)
    _, _, terms = _rows_and_terms(key, cardinality, PILOT_FIRST, PILOT_ROWS)
    shares = np.concatenate([np.full(count, share / count) for _, count, share in planted.SHARE_OF_VARIANCE])
    weights = np.sqrt(shares) / np.maximum(terms.std(0), 1e-9)
    score = np.sort(_weighted(terms, weights))
    score -= score.mean()

    def intercept_for(size: float) -> float:
        low, high = -30.0, 30.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _sigmoid(size * score + middle).mean() < positive_rate else (low, middle)
        return (low + high) / 2

    low, high = 0.01, 20.0
    for _ in range(40):
        size = (low + high) / 2
        p = _sigmoid(size * score + intercept_for(size))
        low, high = (size, high) if auc_of_bins(p, 1 - p) < bayes_auc else (low, size)
    weights *= size
    return Planted(key, cardinality, weights, intercept_for(size) - float(_weighted(terms, weights).mean()))


@compiled
def _write_number(text: NDArray[np.uint8], at: int, value: int) -> int:
    if value < 0:
        text[at] = 45
        at, value = at + 1, -value
    digits, rest = 1, value // 10
    while rest > 0:
        digits, rest = digits + 1, rest // 10
    for d in range(digits - 1, -1, -1):
        text[at + d] = 48 + value % 10
        value //= 10
    return at + digits


@compiled
def _write_lines(label: NDArray[np.uint8], integers: NDArray[np.int64], tokens: NDArray[np.int64], text: NDArray[np.uint8]) -> int:
    """Writes the rows as lines into `text`; returns their length in bytes."""
    at = 0
    for n in range(len(label)):
        text[at] = 48 + label[n]
        at += 1
        for i in range(13):
            text[at] = 9
            at += 1
            if integers[n, i] > MISSING:
                at = _write_number(text, at, integers[n, i])
        for c in range(26):
            text[at] = 9
            at += 1
            if tokens[n, c] > MISSING:
                for d in range(8):
                    digit = (tokens[n, c] >> (28 - 4 * d)) & 15
                    text[at + d] = digit + (48 if digit < 10 else 87)
                at += 8
        text[at] = 10
        at += 1
    return at


def make_chunk(truth: Planted, first: int, rows: int, bad_share: float = 0.0) -> Chunk:
    """The rows first .. first + rows - 1 of the log. A row depends only on (truth, row), not on the chunks."""
    integers, tokens, terms = _rows_and_terms(truth.seed, truth.cardinality, first, rows)
    probability = _sigmoid(_weighted(terms, truth.weights) + truth.intercept)
    label = np.empty(rows, np.uint8)
    planted.draw_labels(truth.seed, first, probability, label)
    text = np.empty(rows * 420, np.uint8)
    text = text[: _write_lines(label, integers, tokens, text)]
    return Chunk(plant_bad_lines(text, truth.seed, first, bad_share) if bad_share else text, probability, label)


def _chunks(truth: Planted, rows: int, chunk_rows: int, bad_share: float, workers: int) -> Iterator[Chunk]:
    with ThreadPoolExecutor(workers) as pool:
        waiting = []
        for first in range(0, rows, chunk_rows):
            waiting.append(pool.submit(make_chunk, truth, first, min(chunk_rows, rows - first), bad_share))
            if len(waiting) > workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _open_output(stack: ExitStack, path: str) -> IO[bytes] | Any:
    file = stack.enter_context(write_output(path))
    if path.endswith((".gz", ".zst")):
        import pyarrow as pa

        # CompressedOutputStream closes its file, so it gets a duplicate: `file` must stay open.
        beneath = stack.enter_context(os.fdopen(os.dup(file.fileno()), "wb"))
        return stack.enter_context(pa.CompressedOutputStream(beneath, "gzip" if path.endswith(".gz") else "zstd"))
    return file


def synthesize(
    output: str,
    rows: int,
    seed: int = 0,
    *,
    scale: float = 1.0,
    bayes_auc: float = 0.81,
    bad_share: float = 0.0,
    truth_path: str | None = None,
    chunk_rows: int = 16_384,
    workers: int | None = None,
) -> Summary:
    """Writes a log of `rows` rows to `output`, compressed if its name ends in .gz or .zst.

    Args:
        bad_share: number of malformed lines to insert, as a share of the rows.
        truth_path: file for the true click probabilities, npy, [rows] float64.

    Raises:
        UserError: an argument is out of range.
    """
    if rows < 1:
        raise UserError(f"--rows is {rows}, expected 1 or more")
    if not 0 < scale <= 100:
        raise UserError(f"--scale is {scale}, expected more than 0 and at most 100")
    if not 0.55 <= bayes_auc <= 0.95:
        raise UserError(f"--bayes-auc is {bayes_auc}, expected 0.55 .. 0.95")
    if not 0 <= bad_share <= 1:
        raise UserError(f"--bad-share is {bad_share}, expected 0 .. 1")
    truth = plant(seed, scale, bayes_auc=bayes_auc)
    tally, size = Tally(), 0
    progress = Progress("synthesize", total_rows=rows)
    with ExitStack() as stack:
        file = _open_output(stack, output)
        truth_file = stack.enter_context(write_output(truth_path)) if truth_path else None
        if truth_file:
            np.lib.format.write_array_header_1_0(truth_file, {"descr": "<f8", "fortran_order": False, "shape": (rows,)})
        for chunk in _chunks(truth, rows, chunk_rows, bad_share, workers or os.cpu_count() or 1):
            file.write(chunk.text.data)
            if truth_file:
                truth_file.write(chunk.probability.tobytes())
            tally.add(chunk.probability, chunk.label)
            size += len(chunk.text)
            progress.update(rows=len(chunk.label), size=len(chunk.text))
    progress.close()
    return Summary(**vars(tally.truth()), bytes=size)
