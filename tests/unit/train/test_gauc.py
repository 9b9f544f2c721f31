"""GAUC against a plain loop over groups and pairs; weights against repeated rows."""

import numpy as np
import pytest
import torch

from dmoe.metrics.auc import ExactAUC
from dmoe.metrics.evaluation import Evaluation
from dmoe.metrics.grouped import GroupedAUC, grouped_auc
from dmoe.model.mixture import Outputs

ROWS = 600


@pytest.fixture
def rows():
    """(group, score, label, weight): groups of many sizes, ties, some with one label only, some rows without a group."""
    rng = np.random.default_rng(3)
    group = rng.zipf(1.5, ROWS).clip(max=60) - 1
    label = rng.random(ROWS) < np.where(group % 7 == 3, 0.0, 0.3)
    return group, np.round(rng.normal(size=ROWS) + label, 1).astype(np.float32), label, rng.integers(1, 4, ROWS).astype(float)


def plain(group, score, label, weight):
    """(GAUC, groups with both labels, their rows) by counting pairs."""
    total = mass = groups = covered = 0
    for one in sorted(set(group.tolist()) - {0}):
        here = group == one
        pairs = ordered = 0.0
        for i in np.flatnonzero(here & label):
            for j in np.flatnonzero(here & ~label):
                pairs += weight[i] * weight[j]
                ordered += weight[i] * weight[j] * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
        if pairs:
            total, mass = total + weight[here].sum() * ordered / pairs, mass + weight[here].sum()
            groups, covered = groups + 1, covered + here.sum()
    return total / mass, groups, covered


@pytest.mark.parametrize("weighted", [False, True])
def test_gauc_equals_a_plain_loop(rows, weighted):
    group, score, label, weight = rows
    weight = weight if weighted else np.ones(ROWS)
    expected, groups, covered = plain(group, score, label, weight)
    found = grouped_auc(group, score, label, weight)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert (found.groups, found.share) == (groups, pytest.approx(covered / ROWS))
    assert 0 < covered < ROWS


def test_gauc_is_of_all_batches_and_leaves_padding_out(rows):
    group, score, label, _ = (torch.from_numpy(column) for column in rows)
    streamed = GroupedAUC()
    for part in torch.arange(ROWS).split(77):
        weight = torch.cat([torch.ones(len(part)), torch.zeros(5)])
        padded = [torch.cat([column[part], torch.ones(5, dtype=column.dtype)]) for column in (score, label.float(), group)]
        streamed.update(padded[0], padded[1], weight, padded[2])
    assert streamed.compute() == grouped_auc(rows[0], rows[1], rows[2], np.ones(ROWS))


def test_no_group_with_both_labels_has_no_gauc():
    found = grouped_auc(np.array([1, 2, 0, 0]), np.arange(4.0), np.array([True, False, True, False]), np.ones(4))
    assert np.isnan(found.value)
    assert (found.groups, found.share) == (0, 0.0)


def outputs_of(score: torch.Tensor) -> Outputs:
    hidden = torch.stack([score, score.square()], 1).unsqueeze(2)
    gate = torch.stack([score.sigmoid(), 1 - score.sigmoid()], 1).unsqueeze(2)
    return Outputs(score, hidden, gate, hidden[:, :, 0], score.new_zeros(len(score), 0))


@pytest.mark.parametrize("auc", ["binned", "exact"])
def test_a_row_of_weight_three_counts_as_three_rows(rows, auc):
    group, score, label, weight = (torch.from_numpy(column) for column in rows)
    weighted, repeated = (Evaluation(auc, 1 << 16, torch.device("cpu")) for _ in range(2))
    weighted.update(outputs_of(score), label.float(), weight, group)
    many = torch.arange(ROWS).repeat_interleave(weight.long())
    repeated.update(outputs_of(score[many]), label[many].float(), torch.ones(len(many)), group[many])
    one, other = weighted.compute(), repeated.compute()
    for name in ("auc", "logloss", "ne", "calibration", "gate_mass", "effective_experts", "expert_auc", "gauc"):
        assert one[name] == pytest.approx(other[name], rel=1e-9), name
    assert (one["rows"], one["positives"], one["weight"]) == (ROWS, int(label.sum()), float(weight.sum()))
    assert "weight" not in other


def test_exact_auc_of_equal_weights_is_the_unweighted_one(rows):
    score, label = torch.from_numpy(rows[1]), torch.from_numpy(rows[2])
    values = []
    for factor in (1.0, 2.5):
        auc = ExactAUC()
        auc.update(score, label.float(), torch.full((ROWS,), factor))
        values.append(auc.compute())
    assert values[0] == values[1]


@pytest.mark.parametrize("auc", ["binned", "exact"])
def test_an_evaluation_after_reset_is_as_a_new_one(rows, auc):
    group, score, label, weight = (torch.from_numpy(column) for column in rows)
    score = score.float()
    used, new = (Evaluation(auc, 1 << 16, torch.device("cpu")) for _ in range(2))
    first = outputs_of(score.flip(0))._replace(left_out_logit_BM=torch.stack([score, -score], 1))
    used.update(first, label.float(), weight, group)
    assert {"gauc", "weight"} <= used.compute().keys()
    used.reset()
    for evaluation in (used, new):
        evaluation.update(outputs_of(score[:99]), label[:99].float(), torch.ones(99))
    assert used.compute() == new.compute()
