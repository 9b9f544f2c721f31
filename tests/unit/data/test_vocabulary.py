"""Counts are right however little memory they may take, and tables keep what was put in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmoe.data import counting, tables
from dmoe.data.criteo import bucket, dense
from dmoe.data.preprocess import Options, preprocess
from dmoe.testing.synthesize import synthesize


def test_counting_in_hash_partitions_gives_the_same_bytes(tmp_path, monkeypatch):
    synthesize(str(tmp_path / "log.tsv"), 12_000, seed=9)
    options = {"inputs": [str(tmp_path / "log.tsv")], "min_count": 1, "workers": 2, "block_bytes": 20_000}
    preprocess(Options(output=str(tmp_path / "roomy"), **options))
    monkeypatch.setattr(counting, "SMALLEST", 1024)
    monkeypatch.setattr(counting, "SPLITTABLE", 1024)
    passes = []
    one_pass = counting.Pass

    def counted(todo, limit):
        passes.append(one_pass(todo, limit))
        return passes[-1]

    monkeypatch.setattr(counting, "Pass", counted)
    limit = 1 << 20
    preprocess(Options(output=str(tmp_path / "tight"), memory_limit=limit, **options))
    assert len(passes) > 1
    assert all(sum(one.keys.nbytes + one.counts.nbytes for one in run.counts.values()) <= limit for run in passes)
    for roomy in sorted((tmp_path / "roomy").rglob("*.*")):
        assert roomy.read_bytes() == (tmp_path / "tight" / roomy.relative_to(tmp_path / "roomy")).read_bytes(), roomy.name


@settings(max_examples=50, deadline=None)
@given(tokens=st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 3), max_size=60), bits=st.integers(0, 3))
def test_every_token_is_counted_in_exactly_one_partition(tokens, bits):
    total: dict[int, int] = {}
    for part in range(1 << bits):
        keys, counts = np.zeros(256, np.uint32), np.zeros(256, np.int64)
        used = tables.add_counts(keys, counts, 0, np.array(tokens, np.uint32), np.ones(len(tokens), np.int64), bits, part)
        here = dict(zip(keys[counts > 0].tolist(), counts[counts > 0].tolist(), strict=True))
        assert used == len(here)
        assert not here.keys() & total.keys()
        total |= here
    assert total == {token: tokens.count(token) for token in tokens}


@settings(max_examples=50, deadline=None)
@given(tokens=st.lists(st.integers(0, 2**32 - 1), unique=True, max_size=60), others=st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_a_table_of_ids_knows_its_tokens_and_no_others(tokens, others):
    keys, ids = np.zeros(128, np.uint32), np.zeros(128, np.int32)
    tables.fill_ids(keys, ids, np.array(tokens, np.uint32), 2)
    asked = tokens + others
    out = np.empty(len(asked), np.int32)
    tables.look_up(keys, ids, np.array(asked, np.uint32), 1, out)
    assert out.tolist() == [2 + tokens.index(token) if token in tokens else 1 for token in asked]


@given(st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-5, 60))
def test_buckets_and_dense_values_are_those_of_the_schema(value):
    raw = np.array([value % 2**32], np.uint32)
    assert tables.buckets(raw).view(np.int32)[0] == bucket(value)
    assert tables.dense(raw)[0] == np.float32(dense(value))


@pytest.mark.parametrize(("value", "expected"), [(-7, -7), (0, 0), (2, 2), (3, 4), (8, 7), (2**31 - 1, 464)])
def test_a_bucket_is_never_mistaken_for_a_value(value, expected):
    assert bucket(value) == expected
