"""Counts are right however little memory they may take, and tables keep what was put in."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmoe.data.prepare.count import count_tables as counting_tables
from dmoe.data.prepare.count import counting
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.tokens import kernels
from dmoe.testing.synthesize import synthesize
from tests.unit.data.log.logs import make_rows, schema, write_csv
from tests.unit.data.reference import bucket


@pytest.mark.parametrize("name", ["criteo", "any"])
def test_counts_that_are_spilled_give_the_same_bytes(tmp_path, monkeypatch, name):
    if name == "criteo":
        synthesize(str(tmp_path / "log"), 12_000, seed=9)
    else:
        write_csv(tmp_path / "log", make_rows(12_000))
    options = {"inputs": [str(tmp_path / "log")], "min_count": 1, "workers": 2, "block_bytes": 20_000}
    options["schema"] = "criteo" if name == "criteo" else schema()
    preprocess(Options(output=str(tmp_path / "roomy"), **options))
    monkeypatch.setattr(counting_tables, "SPILLABLE", 1024)
    monkeypatch.setattr(counting_tables, "SMALLEST", 1 << 6)
    monkeypatch.setattr(counting, "SMALL_TABLE", 1024)
    monkeypatch.setattr(counting_tables, "FEWEST", 1 << 4)
    sizes, spilled = [], []
    spill, keep = counting.Counting._spill, counting.Counting.keep_within
    monkeypatch.setattr(counting.Counting, "_spill", lambda self, feature: spilled.append(feature) or spill(self, feature))
    monkeypatch.setattr(counting.Counting, "keep_within", lambda self: keep(self) or sizes.append(self.size))
    limit = 1 << 20 if name == "criteo" else 30_000
    preprocess(Options(output=str(tmp_path / "tight"), memory_limit=limit, **options))
    assert len(spilled) > 2
    # Two threads may have added a block each since.
    assert max(sizes) <= 2 * limit
    for roomy in sorted((tmp_path / "roomy").rglob("*.*")):
        assert roomy.read_bytes() == (tmp_path / "tight" / roomy.relative_to(tmp_path / "roomy")).read_bytes(), roomy.name


@settings(max_examples=50, deadline=None)
@given(tokens=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=60))
def test_every_token_is_counted_once(tokens):
    for dtype in (np.uint32, np.int64):
        mine = [token % 2**32 for token in tokens] if dtype == np.uint32 else tokens
        counts = counting_tables.NumberCounts(dtype)
        counts.add(pa.array(np.array(mine, dtype)), np.ones(len(mine), np.int64))
        table = counts.table()
        assert dict(zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True)) == dict(Counter(mine))
        assert counts.used == len(set(mine))


@settings(max_examples=50, deadline=None)
@given(tokens=st.lists(st.integers(0, 2**32 - 1), unique=True, max_size=60), others=st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_a_table_of_ids_knows_its_tokens_and_no_others(tokens, others):
    keys, ids = np.zeros(128, np.uint32), np.zeros(128, np.int32)
    kernels.fill_ids(keys, ids, np.array(tokens, np.uint32), 2)
    asked = tokens + others
    out = np.empty(len(asked), np.int32)
    kernels.look_up(keys, ids, np.array(asked, np.uint32), 1, out)
    assert out.tolist() == [2 + tokens.index(token) if token in tokens else 1 for token in asked]


@given(st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-5, 60))
def test_dense_values_are_those_of_the_schema(value):
    assert kernels.log1p(np.array([value], np.int32))[0] == np.float32(math.copysign(math.log1p(abs(value)), value or 1))


@pytest.mark.parametrize(("value", "expected"), [(-7, -7), (0, 0), (2, 2), (3, 4), (8, 7), (2**31 - 1, 464)])
def test_a_bucket_is_never_mistaken_for_a_value(value, expected):
    assert bucket(value) == expected
