"""Which token has which row of a feature's tables: admission by sightings, eviction by age and frequency, a row never without its token.

Every window's tokens are first mapped by the vocabulary of the window before, those that it lacks behind it, each with an id of its own
(`dmoe preprocess --new-tokens append`). `update` then decides who gets a row, and gives two maps of these ids: one of the model as it was
before the window, by which it is tested, and one by which it is trained.

A row is freed only where another token takes it, so the used rows lie without a gap, and the vocabulary is that of any data set. A token
that comes back finds its embedding unless its row was needed.

Shapes: V tokens that have a row, E tokens of the window's own vocabulary (the V first), N = E + 2 ids, C candidates.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.prepare.count.hashed_sizes import BUCKET_SIZE
from dmoe.data.prepare.count.vocabulary import Vocabulary
from dmoe.online_settings import IdsConfig

FIRST_ID = RARE_ID + 1
FORGOTTEN = 0.05
"""Decayed sightings below which a candidate is forgotten: less than a twentieth of one."""


@dataclass(frozen=True)
class FeatureIds:
    """The tokens of a feature after a window: tokens[i] has row 2 + i.

    Attributes:
        tokens: large_binary or int64, [V].
        counts: sightings in the window that gave the token its row, [V] int64.
        seen: decayed sightings, [V] float64.
        born, last: the window that gave the row, and that of the last sighting, [V] int64.
        candidates, candidate_seen: tokens that have no row, and their decayed sightings, [C], the most frequent first.
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
    """What a window does to a feature's rows.

    Attributes:
        test_N, train_N: the row that each of the window's ids stands for when the window is tested, and when it is trained, int32.
        born: the rows that have another token than before, or have one for the first time, ascending, int64.
        evicted: how many tokens lost their row; waiting: tokens of the window that have none.
    """

    test_N: NDArray[np.int32]
    train_N: NDArray[np.int32]
    born: NDArray[np.int64]
    evicted: int
    waiting: int


def no_ids(name: str, kind: pa.DataType) -> FeatureIds:
    """Before the first window."""
    whole, real = np.empty(0, np.int64), np.empty(0, np.float64)
    return FeatureIds(name, pa.array([], kind), whole, real, whole, whole, pa.array([], kind), real)


def from_vocabulary(vocabulary: Vocabulary, capacity: int) -> FeatureIds:
    """The ids of a data set that was made before, whose tokens were last seen before the first window."""
    kept = vocabulary.cut(capacity - FIRST_ID)
    zeros = np.zeros(len(kept.tokens), np.int64)
    none = no_ids(vocabulary.name, kept.tokens.type)
    return replace(none, tokens=kept.tokens, counts=kept.counts, seen=kept.counts.astype(np.float64), born=zeros, last=zeros)


def update(
    before: FeatureIds, tokens: pa.Array, count_N: NDArray[np.int64], window: int, capacity: int, settings: IdsConfig
) -> tuple[FeatureIds, Change]:
    """Gives rows to the tokens of a window.

    Args:
        tokens: the window's vocabulary, [E], whose first V are those of `before`.
        count_N: sightings of each id in the window, missing and rare first.
        capacity: rows of the tables.

    Returns:
        the ids after the window, and what changes. A function of the arguments alone: a window that is done again is done alike.
    """
    known, total = len(before.tokens), len(tokens)
    seen = before.seen * settings.decay + count_N[FIRST_ID : FIRST_ID + known]
    last = np.where(count_N[FIRST_ID : FIRST_ID + known] > 0, window, before.last)
    new, fresh_seen = tokens[known:], count_N[FIRST_ID + known :].astype(np.float64)
    old_seen = before.candidate_seen * settings.decay
    place = pc.fill_null(pc.index_in(new, before.candidates), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    fresh_seen[place >= 0] += old_seen[place[place >= 0]]

    # Who wants a row: the most frequent first; equal ones in the order of the window's vocabulary.
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

    # What both kinds of tokens tell, in the window's order, of which `source` picks.
    first = np.full(total - known, window)
    after = FeatureIds(
        before.name,
        tokens.take(pa.array(source)),
        np.concatenate([before.counts, count_N[FIRST_ID + known :]])[source],
        np.concatenate([seen, fresh_seen])[source],
        np.concatenate([before.born, first])[source],
        np.concatenate([last, first])[source],
        *_candidates(before, old_seen, place, tokens, known, fresh_seen, admitted, seen, evicted, capacity, settings),
    )
    return after, Change(test_N, train_N, born, len(evicted), len(new) - len(admitted))


def _rows_to_take(
    seen: NDArray[np.float64], last: NDArray[np.int64], wanted: NDArray[np.float64], window: int, settings: IdsConfig
) -> NDArray[np.int64]:
    """Places of the tokens that lose their rows to those that want one (their sightings, descending), the first to the first."""
    aged = (window - last > settings.max_age) if settings.max_age is not None else np.zeros(len(seen), bool)
    victims = np.lexsort((np.arange(len(seen)), seen, ~aged))[: len(wanted)]
    loses = aged[victims] | (seen[victims] < wanted[: len(victims)])
    # The first that keeps its row ends it: who comes behind wants less, and who is behind has more.
    count = len(loses) if loses.all() else int(np.argmin(loses))
    return victims[:count].astype(np.int64)


def _candidates(
    before: FeatureIds,
    old_seen: NDArray[np.float64],
    place: NDArray[np.int64],
    tokens: pa.Array,
    known: int,
    fresh_seen: NDArray[np.float64],
    admitted: NDArray[np.int64],
    seen: NDArray[np.float64],
    evicted: NDArray[np.int64],
    capacity: int,
    settings: IdsConfig,
) -> tuple[pa.Array, NDArray[np.float64]]:
    """The tokens without a row whose sightings are remembered: those of the window, those before, and those that lost their row."""
    absent = np.ones(len(before.candidates), bool)
    absent[place[place >= 0]] = False
    waiting = np.ones(len(tokens) - known, bool)
    waiting[admitted] = False
    parts = [before.candidates.filter(pa.array(absent)), tokens[known:].filter(pa.array(waiting)), tokens.take(pa.array(evicted))]
    values = np.concatenate([old_seen[absent], fresh_seen[waiting], seen[evicted]])
    order = np.argsort(-values, kind="stable")[: int(settings.candidates * capacity)]
    order = order[values[order] >= FORGOTTEN]
    return pa.concat_arrays(parts).take(pa.array(order)), values[order]


def capacity_of(settings: IdsConfig, name: str, small: bool) -> int:
    """Rows of a feature's tables.

    Args:
        small: the feature is a number's bucket or a part of the time, which have some hundred tokens.
    """
    return settings.capacities.get(name, min(settings.capacity, BUCKET_SIZE) if small else settings.capacity)
