"""Means and deviations of numbers in the train split, and samples for their quantiles."""

import sys
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.count.moments import Moments
from dmoe.data.prepare.split.part_splitter import PartSplitter
from dmoe.data.prepare.tokens.buckets import SAMPLE
from dmoe.data.prepare.tokens.token_columns import numbers_of
from dmoe.names import show


def train_moments(splitter: PartSplitter, names: dict[str, str], rows_a_step: int) -> dict[str, tuple[float, float]]:
    """(mean, deviation) of each feature over the train split. They are accumulated over fixed row ranges, so that they do not depend on
    the size of parsed blocks.

    Args:
        names: for each feature the column of the parts that holds its numbers.
    """
    moments = {name: Moments() for name in names}
    for name, value_N in _numbers(splitter, names, rows_a_step):
        moments[name].add(value_N)
    for name, one in moments.items():
        if (lone := one.lone_number()) is not None:
            show(f"{name}: one number, {lone:g}, makes nearly all of the variance; standardised, the others hardly differ", sys.stderr)
    return {name: one.result() for name, one in moments.items()}


def train_samples(splitter: PartSplitter, names: dict[str, str], rows_a_step: int) -> dict[str, NDArray[np.float64]]:
    """About SAMPLE numbers of each feature, evenly spread over the train split."""
    every = -(-splitter.total // SAMPLE)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for name, value_N in _numbers(splitter, names, rows_a_step):
        found[name].append(value_N[::every].copy())
    return {name: np.concatenate(values) for name, values in found.items()}


def _numbers(splitter: PartSplitter, names: dict[str, str], rows_a_step: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yields (feature, its numbers in the train split) of each range of rows."""
    for begin in range(0, splitter.total if names else 0, rows_a_step):
        found: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in names}
        for number, batch, first in splitter.batches(sorted(set(names.values())), begin, min(begin + rows_a_step, splitter.total)):
            train_N = splitter.assign(number)[first : first + batch.num_rows] == 0
            for name, stored in names.items():
                found[name].append(numbers_of(batch.column(stored).filter(pa.array(train_N))))
        for name, values in found.items():
            yield name, np.concatenate(values)
