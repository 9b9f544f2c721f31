"""Assignment of table rows to the tokens of a feature: tokens are admitted by sightings, and evicted by age and frequency.

The tokens of a window are first mapped by the vocabulary of the previous window; new tokens get the next ids (`dmoe preprocess --new-tokens
append`). `update` then decides which tokens get a row, and returns two maps from these ids to rows: one for the model before the window,
which is used to test it, and one for training.

A row is freed only if another token takes it. The used rows therefore have no gaps, and the vocabulary has the same form as in any data
set. A token that comes back still has its embedding, unless another token took its row.

Shapes: V tokens that have a row, E tokens of the window's own vocabulary (the V first), N = E + 2 ids, C candidates.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.config.online_settings import IdsConfig
from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.prepare.count.hashed_sizes import BUCKET_SIZE
from dmoe.data.prepare.count.vocabulary import Vocabulary
from dmoe.data.prepare.tokens.whole_numbers import NumberIds

FIRST_ID = RARE_ID + 1
FORGOTTEN = 0.05
"""A candidate with fewer decayed sightings is forgotten."""


@dataclass(frozen=True)
class FeatureIds:
    """The tokens of a feature after a window: tokens[i] has row 2 + i.

    Attributes:
        tokens: large_binary or int64, [V].
        counts: sightings in the window in which the token got its row, [V] int64.
        seen: decayed sightings, [V] float64.
        born, last: the window in which the token got its row, and that of its last sighting, [V] int64.
        candidates, candidate_seen: tokens without a row, and their decayed sightings, [C], the most frequent first.
    """

    name: str
    tokens: pa.Array
    counts: NDArray[np.int64]
    seen: NDArray[np.float64]
    born: NDArray[np.int64]
    last: NDArray[np.int64]
    candidates: pa.Array
    candidate_seen: NDArray[np.float64]

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.name, self.tokens, self.counts)


@dataclass(frozen=True)
class Change:
    """The changes that a window makes to the rows of a feature.

    Attributes:
        test_N, train_N: the row of each id of the window for testing, and for training, int32.
        born: the rows that get a new token, ascending, int64.
        evicted: number of tokens that lost their row.
        waiting: number of tokens of the window without a row.
    """

    test_N: NDArray[np.int32]
    train_N: NDArray[np.int32]
    born: NDArray[np.int64]
    evicted: int
    waiting: int


def no_ids(name: str, kind: pa.DataType) -> FeatureIds:
    """The ids before the first window: none."""
    whole, real = np.empty(0, np.int64), np.empty(0, np.float64)
    return FeatureIds(name, pa.array([], kind), whole, real, whole, whole, pa.array([], kind), real)


def from_vocabulary(vocabulary: Vocabulary, capacity: int) -> FeatureIds:
    """The ids of an initial data set, whose tokens count as seen before the first window."""
    kept = vocabulary.cut(capacity - FIRST_ID)
    zeros = np.zeros(len(kept.tokens), np.int64)
    none = no_ids(vocabulary.name, kept.tokens.type)
    return replace(none, tokens=kept.tokens, counts=kept.counts, seen=kept.counts.astype(np.float64), born=zeros, last=zeros)


def update(
    before: FeatureIds, tokens: pa.Array, count_N: NDArray[np.int64], window: int, capacity: int, settings: IdsConfig
) -> tuple[FeatureIds, Change]:
    """Assigns rows to the tokens of a window.

    Args:
        tokens: vocabulary of the window, [E]; the first V tokens are those of `before`.
        count_N: sightings of each id in the window; the first two are missing and rare values.
        capacity: number of rows of the tables.

    Returns:
        the ids after the window, and the changes. They depend only on the arguments, so a repeated window gives the same result.
    """
    known, total = len(before.tokens), len(tokens)
    seen = before.seen * settings.decay + count_N[FIRST_ID : FIRST_ID + known]
    last = np.where(count_N[FIRST_ID : FIRST_ID + known] > 0, window, before.last)
    new, fresh_seen = tokens[known:], count_N[FIRST_ID + known :].astype(np.float64)
    old_seen = before.candidate_seen * settings.decay
    place = pc.fill_null(pc.index_in(new, before.candidates), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    fresh_seen[place >= 0] += old_seen[place[place >= 0]]

    # New tokens to admit, the most frequent first; equally frequent ones in the order of the vocabulary.
    wanting = np.flatnonzero(fresh_seen >= max(settings.admit_count, 1e-9))
    wanting = wanting[np.argsort(-fresh_seen[wanting], kind="stable")]
    unused = min(max(capacity - FIRST_ID - known, 0), len(wanting))
    rows = _rows_to_take(seen, last, fresh_seen[wanting[unused:]], window, settings)
    source = np.concatenate([np.arange(known), known + wanting[:unused]])
    evicted = source[rows].copy()
    source[rows] = known + wanting[unused : unused + len(rows)]
    admitted = wanting[: unused + len(rows)]

    train_N = np.full(total + FIRST_ID, RARE_ID, np.int32)
    train_N[:FIRST_ID] = np.arange(FIRST_ID)
    train_N[FIRST_ID + source] = np.arange(len(source), dtype=np.int32) + FIRST_ID
    test_N = np.arange(total + FIRST_ID, dtype=np.int32)
    test_N[FIRST_ID + known :] = RARE_ID
    born = np.sort(np.concatenate([np.arange(known, known + unused), rows])).astype(np.int64) + FIRST_ID

    # Candidates after the window: earlier ones, new tokens without a row, and tokens that lost their row.
    absent, waiting = np.ones(len(old_seen), bool), np.ones(len(new), bool)
    absent[place[place >= 0]] = False
    waiting[admitted] = False
    parts = [
        (before.candidates.filter(pa.array(absent)), old_seen[absent]),
        (new.filter(pa.array(waiting)), fresh_seen[waiting]),
        (tokens.take(pa.array(evicted)), seen[evicted]),
    ]

    # Each array has old and new tokens in the order of the window's vocabulary; `source` selects the token of each row.
    first = np.full(total - known, window)
    after = FeatureIds(
        before.name,
        tokens.take(pa.array(source)),
        np.concatenate([before.counts, count_N[FIRST_ID + known :]])[source],
        np.concatenate([seen, fresh_seen])[source],
        np.concatenate([before.born, first])[source],
        np.concatenate([last, first])[source],
        *_most_frequent(parts, int(settings.candidates * capacity)),
    )
    by_number(after, tokens, train_N[FIRST_ID:])
    return after, Change(test_N, train_N, born, len(evicted), len(new) - len(admitted))


def rows_of(ids: FeatureIds, tokens: pa.Array) -> NDArray[np.int32]:
    """The row of each token [n], with which a version with these ids serves it; RARE_ID for a token without a row."""
    place = pc.fill_null(pc.index_in(tokens, ids.tokens), RARE_ID - FIRST_ID).to_numpy(zero_copy_only=False)
    row_n = (place + FIRST_ID).astype(np.int32)
    by_number(ids, tokens, row_n)
    return row_n


def by_number(ids: FeatureIds, tokens: pa.Array, row_n: NDArray[np.int32]) -> None:
    """Replaces RARE_ID in `row_n` by the row of the token that is the same whole number, such as `7` for `7.0`."""
    if pa.types.is_large_binary(tokens.type):
        NumberIds(ids.tokens, FIRST_ID).look_up(tokens, row_n, RARE_ID)


def _rows_to_take(
    seen: NDArray[np.float64], last: NDArray[np.int64], wanted: NDArray[np.float64], window: int, settings: IdsConfig
) -> NDArray[np.int64]:
    """Indices of the tokens that lose their rows; `wanted` are the sightings of the new tokens, descending. The first new token gets the
    first of these rows, and so on."""
    aged = (window - last > settings.max_age) if settings.max_age is not None else np.zeros(len(seen), bool)
    victims = np.lexsort((np.arange(len(seen)), seen, ~aged))[: len(wanted)]
    loses = aged[victims] | (seen[victims] < wanted[: len(victims)])
    # Stops at the first token that keeps its row: the following new tokens are less frequent, and the following old ones more frequent.
    count = len(loses) if loses.all() else int(np.argmin(loses))
    return victims[:count].astype(np.int64)


def _most_frequent(parts: list[tuple[pa.Array, NDArray[np.float64]]], most: int) -> tuple[pa.Array, NDArray[np.float64]]:
    """At most `most` of the tokens and their sightings, the most frequent first, without forgotten ones."""
    seen = np.concatenate([seen for _, seen in parts])
    order = np.argsort(-seen, kind="stable")[:most]
    order = order[seen[order] >= FORGOTTEN]
    return pa.concat_arrays([tokens for tokens, _ in parts]).take(pa.array(order)), seen[order]


def capacity_of(settings: IdsConfig, name: str, small: bool) -> int:
    """Number of rows of a feature's tables.

    Args:
        small: the feature is a bucket of a number or a part of the time, which have a few hundred tokens.
    """
    return settings.capacities.get(name, min(settings.capacity, BUCKET_SIZE) if small else settings.capacity)
