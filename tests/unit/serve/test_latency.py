"""Scorers are measured in turns, with bags where the model takes them."""

import pytest

from dmoe.report.latency import FASTEST, Latency, bytes_of, measure, together
from dmoe.serve.scorer import Scorer
from tests.unit.serve.test_scored_bags import with_pooling
from tests.unit.serve.test_scorer import make


def test_every_call_is_kept_and_takes_time(tmp_path):
    for name, rows in (("whole", "fp32"), ("small", "int8")):
        (tmp_path / name).mkdir()
        make(tmp_path / name, rows)
    scorers = {"whole": with_pooling(tmp_path / "whole", "mean"), "small": Scorer(str(tmp_path / "small"))}
    found = measure(scorers, rounds=2, batches=(1, 16))
    for name, one in found.items():
        assert {rows: len(calls) for rows, calls in one.calls.items()} == {1: 2, 16: 2}
        assert min(min(calls) for calls in one.calls.values()) > 0
        assert one.size == bytes_of(scorers[name])
    assert found["small"].size < found["whole"].size


def test_medians_and_an_ensembles_sum():
    one, other = Latency(10, {1: [0.003, 0.001, 0.002], 100: [0.1]}), Latency(5, {1: [0.01], 100: [0.4]})
    assert (one.milliseconds(1), one.milliseconds(1, 1.0), one.rows_a_second()) == pytest.approx((2, 3, 1000))
    both = together([one, other])
    assert (both.size, both.milliseconds(1, FASTEST), both.rows_a_second()) == pytest.approx((15, 11, 200))
