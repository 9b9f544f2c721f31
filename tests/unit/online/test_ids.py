"""Rows for tokens: against a plain Python model of the rules, and the promises that hold after any sequence of windows."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from dmoe.config.online_settings import IdsConfig
from dmoe.data.prepare.tokens.token_ids import TokenIds
from dmoe.online.ids import FIRST_ID, FeatureIds, no_ids, rows_of, update


def as_window(before: FeatureIds, tokens: list[str]) -> tuple[pa.Array, np.ndarray, list[int]]:
    """What preparing a window gives: its vocabulary, the sightings of each id, and the id of each token."""
    known = [one.as_py().decode() for one in before.tokens]
    counted = Counter(tokens)
    new = sorted((one for one in counted if one not in known), key=lambda one: (-counted[one], one))
    every = known + new
    count_N = np.array([0, 0, *(counted[one] for one in every)], np.int64)
    place = {one: FIRST_ID + number for number, one in enumerate(every)}
    return pa.array([one.encode() for one in every], pa.large_binary()), count_N, [place[one] for one in tokens]


class Plain:
    """The rules, a token at a time."""

    def __init__(self, capacity: int, settings: IdsConfig) -> None:
        self.room, self.settings = capacity - FIRST_ID, settings
        self.row: dict[str, int] = {}
        self.seen: dict[str, float] = {}
        self.last: dict[str, int] = {}

    def window(self, number: int, tokens: list[str]) -> set[int]:
        counted, born = Counter(tokens), set()
        for one in list(self.seen):
            self.seen[one] *= self.settings.decay
        new = sorted((one for one in counted if one not in self.row), key=lambda one: (-counted[one], one))
        for one, count in counted.items():
            self.seen[one] = self.seen.get(one, 0.0) + count
            self.last[one] = number
        wanting = [one for one in new if self.seen[one] >= self.settings.admit_count]
        wanting.sort(key=lambda one: (-self.seen[one], new.index(one)))

        def aged(one: str) -> bool:
            return self.settings.max_age is not None and number - self.last[one] > self.settings.max_age

        victims = sorted(self.row, key=lambda one: (not aged(one), self.seen[one], self.row[one]))
        for one in wanting:
            if len(self.row) < self.room:
                self.row[one] = len(self.row) + FIRST_ID
            elif victims and (aged(victims[0]) or self.seen[victims[0]] < self.seen[one]):
                self.row[one] = self.row.pop(victims.pop(0))
            else:
                break
            born.add(self.row[one])
        for one in [one for one, seen in self.seen.items() if one not in self.row and seen < 0.05]:
            del self.seen[one]
        return born


@pytest.mark.parametrize("max_age", [None, 3])
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_rows_are_given_and_taken_by_the_rules(decay: float, max_age: int | None):
    settings = IdsConfig(admit_count=2.0, decay=decay, max_age=max_age, candidates=1000.0)
    plain, ids, draw = Plain(9, settings), no_ids("site", pa.large_binary()), np.random.default_rng(3)
    evictions = 0
    for number in range(1, 40):
        tokens = [f"t{number // 4 + int(draw.zipf(1.6)) % 12}" for _ in range(30)]
        before = {one.as_py(): FIRST_ID + place for place, one in enumerate(ids.tokens)}
        vocabulary, count_N, id_of = as_window(ids, tokens)
        ids, change = update(ids, vocabulary, count_N, number, 9, settings)
        born = plain.window(number, tokens)
        after = {one.as_py(): FIRST_ID + place for place, one in enumerate(ids.tokens)}
        assert after == {one.encode(): row for one, row in plain.row.items()}
        assert set(change.born.tolist()) == born
        # A token's row in the maps is its row before, and after, and else that of rare tokens.
        assert [change.test_N[one] for one in id_of] == [before.get(token.encode(), 1) for token in tokens]
        assert [change.train_N[one] for one in id_of] == [after.get(token.encode(), 1) for token in tokens]
        # Who keeps a token keeps the row, and a row with another token is born.
        assert all(after[one] == row for one, row in before.items() if one in after)
        assert {row for one, row in after.items() if before.get(one) != row} == born
        for place, one in enumerate(ids.tokens):
            name = one.as_py().decode()
            assert ids.seen[place] == pytest.approx(plain.seen[name])
            assert ids.last[place] == plain.last[name]
        evictions += change.evicted
    assert evictions > 5


def test_sightings_of_several_windows_admit_a_token_and_numbers_are_tokens_too():
    settings, ids = IdsConfig(admit_count=3.0, decay=1.0), no_ids("hour", pa.int64())
    for number, expected in ((1, 0), (2, 0), (3, 1)):
        known = len(ids.tokens)
        ids, change = update(ids, pa.array([7]), np.array([0, 0, 1]), number, 10, settings)
        assert (len(ids.tokens), len(change.born), len(ids.candidates)) == (expected, expected - known, 1 - expected)
    assert (ids.born[0], ids.counts[0], ids.seen[0]) == (3, 1, 3.0)


def test_the_memory_of_candidates_is_bounded():
    settings, ids = IdsConfig(admit_count=5.0, decay=0.9, candidates=2.0, capacity=10), no_ids("user", pa.int64())
    for number in range(1, 30):
        tokens = np.arange(number * 100, number * 100 + 60)
        ids, _ = update(ids, pa.array(tokens), np.concatenate([[0, 0], np.ones(60, np.int64)]), number, 10, settings)
        assert len(ids.candidates) <= 20
        assert len(ids.tokens) == 0


def test_a_number_without_a_row_is_trained_by_the_row_that_serves_it():
    tokens, count_N, _ = as_window(no_ids("user", pa.large_binary()), ["7"] * 6 + ["7.0"] * 2 + ["u"] * 2)
    after, change = update(no_ids("user", pa.large_binary()), tokens, count_N, 1, 10, IdsConfig(admit_count=3))
    assert tokens.to_pylist() == [b"7", b"7.0", b"u"]
    assert change.train_N.tolist() == [0, 1, 2, 2, 1]
    assert TokenIds(after.tokens).look_up(tokens).tolist() == rows_of(after, tokens).tolist() == [2, 2, 1]
