"""A synthesized log: its bytes depend on seed and row alone, and its truth is what it says."""

import numpy as np
import pytest

from dmoe.testing.criteo import COLUMNS
from dmoe.testing.planted import INTEGER_MISSING, TOKEN_MISSING
from dmoe.testing.synthesize import synthesize


def test_rows_do_not_depend_on_chunks_workers_or_the_number_of_rows(tmp_path):
    synthesize(str(tmp_path / "a"), 5000, seed=2, chunk_rows=5000, workers=1, bad_share=0.01)
    synthesize(str(tmp_path / "b"), 5000, seed=2, chunk_rows=333, workers=3, bad_share=0.01)
    synthesize(str(tmp_path / "c"), 1000, seed=2, bad_share=0.01)
    synthesize(str(tmp_path / "d"), 1000, seed=3)
    a, b, c, d = ((tmp_path / name).read_bytes() for name in "abcd")
    assert a == b
    assert a.startswith(c)
    assert c[:500] != d[:500]


def test_the_truth_is_calibrated_and_the_best_auc_is_the_one_asked_for(tmp_path):
    made = synthesize(str(tmp_path / "log"), 40_000, seed=5, scale=0.01, bayes_auc=0.8, truth_path=str(tmp_path / "truth.npy"))
    truth = np.load(tmp_path / "truth.npy")
    label = np.array([line.startswith(b"1") for line in (tmp_path / "log").read_bytes().splitlines()])
    assert truth.shape == label.shape == (40_000,)
    assert made.positive_rate == label.mean() == pytest.approx(truth.mean(), abs=0.01) == pytest.approx(0.25, abs=0.015)
    for low in np.arange(0, 0.9, 0.1):
        here = (truth >= low) & (truth < low + 0.1)
        assert label[here].mean() == pytest.approx(truth[here].mean(), abs=4 * np.sqrt(0.25 / here.sum()))
    order = np.argsort(truth)
    rank = np.empty(len(order))
    rank[order] = np.arange(1, len(order) + 1)
    positives = label.sum()
    auc = (rank[label].sum() - positives * (positives + 1) / 2) / (positives * (len(label) - positives))
    assert made.bayes_auc == pytest.approx(auc, abs=1e-4)
    assert made.expected_bayes_auc == pytest.approx(0.8, abs=0.005)
    assert made.bayes_logloss == pytest.approx(-np.log(np.where(label, truth, 1 - truth)).mean())


def test_missing_rates_and_heads_are_like_the_real_log(tmp_path):
    synthesize(str(tmp_path / "log"), 20_000, seed=6)
    rows = [line.split(b"\t") for line in (tmp_path / "log").read_bytes().splitlines()]
    for column, (name, share) in enumerate(zip(COLUMNS, INTEGER_MISSING + TOKEN_MISSING, strict=True), start=1):
        assert np.mean([row[column] == b"" for row in rows]) == pytest.approx(share, abs=0.015), name
    assert any(row[2].startswith(b"-") for row in rows)
    tokens = [row[16] for row in rows if row[16]]
    assert len(set(tokens)) > 5000
    assert max(np.unique(tokens, return_counts=True)[1]) > 500
