"""AUC against counting all pairs."""

import numpy as np
import pytest
import torch

from dmoe.metrics.auc import BinnedAUC, ExactAUC, exact_auc


def all_pairs(scores: np.ndarray, labels: np.ndarray) -> float:
    positives, negatives = scores[labels], scores[~labels]
    wins = (positives[:, None] > negatives[None, :]).sum() + 0.5 * (positives[:, None] == negatives[None, :]).sum()
    return wins / (len(positives) * len(negatives))


@pytest.fixture
def rows():
    rng = np.random.default_rng(1)
    labels = rng.random(700) < 0.3
    return np.round(rng.normal(size=700) + labels, 2).astype(np.float32), labels


def test_exact_auc_counts_ties_as_a_half(rows):
    assert exact_auc(*rows) == pytest.approx(all_pairs(*rows), rel=1e-12)


@pytest.mark.parametrize("bins", [64, 1 << 20])
def test_binned_auc_is_within_its_own_bound(rows, bins):
    scores, labels = rows
    auc = BinnedAUC(bins)
    for part in np.array_split(np.arange(700), 3):
        auc.update(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]).float(), torch.ones(len(part)))
    value, bound = float(auc.compute()), auc.error_bound
    assert abs(value - all_pairs(scores, labels)) <= bound + 1e-12
    assert bound < (0.1 if bins == 64 else 2e-3)


def test_padding_does_not_count(rows):
    scores, labels = rows
    padded = torch.cat([torch.from_numpy(scores), torch.full((50,), 9.0)])
    label = torch.cat([torch.from_numpy(labels).float(), torch.zeros(50)])
    mask = torch.cat([torch.ones(700), torch.zeros(50)])
    for auc in (BinnedAUC(1 << 20), ExactAUC()):
        auc.update(padded, label, mask)
        assert float(auc.compute()) == pytest.approx(all_pairs(scores, labels), abs=2e-3 if isinstance(auc, BinnedAUC) else 1e-12)


def test_scores_beyond_the_range_of_the_bins():
    auc = BinnedAUC(16)
    auc.update(torch.tensor([-1e6, 1e6]), torch.tensor([0.0, 1.0]), torch.ones(2))
    assert (float(auc.compute()), auc.error_bound) == (1.0, 0.0)


def test_one_label_only_has_no_auc():
    assert np.isnan(exact_auc(np.ones(3, np.float32), np.ones(3, bool)))
    auc = BinnedAUC(8)
    auc.update(torch.zeros(3), torch.ones(3), torch.ones(3))
    assert np.isnan(float(auc.compute()))
