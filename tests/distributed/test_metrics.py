"""Metrics over all ranks' rows, padded batches included, against numpy over the rows in one place.

Shapes: N rows of the split, M experts, D width of an expert's output.
"""

import math

import numpy as np
import pytest
import torch

from dmoe import distributed
from dmoe.testing.small_run import open_small, small_config, train_steps
from dmoe.train.evaluate import evaluate

OVERRIDES = ("train.eval_batch_size=300", "metrics.auc=exact")


def evaluated(data: str, *overrides: str) -> dict:
    session = open_small(small_config(data, *OVERRIDES, *overrides))
    train_steps(session, 3)
    return evaluate(session, session.reader("validation"))


def raw(data: str) -> tuple[np.ndarray, ...]:
    """Logits, labels, gates and hidden outputs of every row, on one rank, by calling the model without the evaluation."""
    session = open_small(small_config(data, *OVERRIDES))
    train_steps(session, 3)
    session.pipeline.detach()
    session.sharded.eval()
    parts = []
    with torch.no_grad():
        for batch in session.reader("validation").batches(100, 0, 1):
            _, (_, outputs, label_B, weight_B, _) = session.sharded(batch)
            assert bool((weight_B == 1).all())
            parts.append([x.double().numpy() for x in (outputs.logit_B, label_B, outputs.gate_BMG, outputs.hidden_BMD)])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.fixture(scope="module")
def expected(ranks, data_set):
    (result,) = ranks(1).run(raw, data_set)
    return result


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_metrics_are_of_the_rows_of_all_ranks(ranks, data_set, expected, world_size):
    logit, label, gate_NMG, hidden_NMD = expected
    positive = label > 0.5
    wins = (logit[positive][:, None] > logit[~positive][None, :]).mean()
    ties = (logit[positive][:, None] == logit[~positive][None, :]).mean()
    logloss = np.mean(np.log1p(np.exp(logit)) - label * logit)
    rate = label.mean()
    r_PP = np.abs(np.corrcoef(hidden_NMD.reshape(len(logit), -1), rowvar=False))
    experts = hidden_NMD.shape[1]
    matrix = r_PP.reshape(experts, -1, experts, r_PP.shape[0] // experts).mean((1, 3))
    results = ranks(world_size).run(evaluated, data_set)
    assert all(result["auc"] == results[0]["auc"] for result in results)
    figures = results[0]
    assert (figures["rows"], figures["positives"]) == (len(label), int(label.sum()))
    # Weights of three steps on another number of ranks differ by rounding, and so do the figures.
    assert figures["auc"] == pytest.approx(wins + ties / 2, abs=1e-4)
    assert figures["logloss"] == pytest.approx(logloss, rel=1e-5)
    assert figures["ne"] == pytest.approx(logloss / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)), rel=1e-5)
    assert figures["calibration"] == pytest.approx((1 / (1 + np.exp(-logit))).sum() / label.sum(), rel=1e-5)
    assert figures["cec"] == pytest.approx(matrix[np.triu_indices(experts, 1)].mean(), rel=1e-4)
    np.testing.assert_allclose(figures["gate_mass"], gate_NMG.mean((0, 2)), rtol=1e-4)


def in_bf16(data: str) -> tuple[list[float], list[float], str]:
    runs = []
    for precision in ("fp32", "bf16"):
        session = open_small(small_config(data, f"train.precision={precision}"))
        runs.append(train_steps(session, 6))
    batch = next(session.reader("train").batches(64, distributed.rank(), distributed.world_size()))
    session.pipeline.detach()
    _, (losses, outputs, *_) = session.sharded(batch)
    return *runs, f"{losses.correlation.dtype} {outputs.logit_B.dtype}"


def test_bf16_runs_the_dense_part_and_leaves_the_correlation_in_fp32(ranks, data_set):
    for fp32, bf16, dtypes in ranks(2).run(in_bf16, data_set):
        assert bf16 == pytest.approx(fp32, rel=0.03)
        assert bf16 != fp32
        assert dtypes == "torch.float32 torch.float32"


def test_binned_auc_over_ranks_is_within_its_bound_of_the_exact_one(ranks, data_set):
    (exact, *_), (binned, *_) = (ranks(2).run(evaluated, data_set, f"metrics.auc={kind}") for kind in ("exact", "binned"))
    assert abs(exact["auc"] - binned["auc"]) <= binned["auc_error_bound"] + 1e-9
    assert binned["auc_error_bound"] < 1e-3
