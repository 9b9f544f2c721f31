"""What the train split's numbers tell before rows are written: means and deviations, and samples that quantiles are taken of."""

import sys

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.count.moments import Moments
from dmoe.data.prepare.split.part_splitter import PartSplitter
from dmoe.data.prepare.tokens.buckets import SAMPLE
from dmoe.data.prepare.tokens.token_columns import numbers_of
from dmoe.names import show


def train_moments(splitter: PartSplitter, names: dict[str, str], rows_a_step: int) -> dict[str, tuple[float, float]]:
    """(mean, deviation) of numbers over the train split, added up over fixed stretches of rows, so that blocks do not change a bit.

    Args:
        names: what the parts store each feature's numbers as.
    """
    moments = {name: Moments() for name in names}
    for begin in range(0, splitter.total if names else 0, rows_a_step):
        for name, value_N in _numbers(splitter, names, begin, min(begin + rows_a_step, splitter.total)).items():
            moments[name].add(value_N)
    for name, one in moments.items():
        if (lone := one.lone_number()) is not None:
            show(f"{name}: one number, {lone:g}, makes nearly all of the spread, so standardise leaves the others none", sys.stderr)
    return {name: one.result() for name, one in moments.items()}


def train_samples(splitter: PartSplitter, names: dict[str, str], rows_a_step: int) -> dict[str, NDArray[np.float64]]:
    """About SAMPLE numbers of each column, evenly spread over the train split."""
    every = -(-splitter.total // SAMPLE)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for begin in range(0, splitter.total if names else 0, rows_a_step):
        for name, value_N in _numbers(splitter, names, begin, min(begin + rows_a_step, splitter.total)).items():
            found[name].append(value_N[::every].copy())
    return {name: np.concatenate(values) for name, values in found.items()}


def _numbers(splitter: PartSplitter, names: dict[str, str], begin: int, end: int) -> dict[str, NDArray[np.float64]]:
    """Each feature's numbers in rows begin .. end - 1 that are in the train split."""
    found: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in names}
    for number, batch, first in splitter.batches(sorted(set(names.values())), begin, end):
        train_N = splitter.assign(number)[first : first + batch.num_rows] == 0
        for name, stored in names.items():
            column = batch.column(stored)
            found[name].append(numbers_of(column.filter(pa.array(train_N))))
    return {name: np.concatenate(values) for name, values in found.items()}
