"""Compares the scores of an exported scorer with those of the run's evaluation.

Shapes: N rows.
"""

import numpy as np
import torch

from dmoe.config.config import load_config
from dmoe.config.sections import DataConfig
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading.epoch_order import order_name
from dmoe.data.skew import skew_lines
from dmoe.errors import UserError
from dmoe.finite import require_finite
from dmoe.metrics import ExactAUC
from dmoe.serve.score_dataset import check_fits, probabilities, read_split
from dmoe.serve.scorer import Scorer
from dmoe.storage.paths import PATHS, inside, join

PREDICTIONS = "predictions.npz"
FP32_BOUND = 1e-4
"""Largest allowed difference of a logit: batch sizes and kernels differ in the order in which they add numbers."""


def against_run(run: str, scorer: str, rows: int) -> str:
    """Compares scores with the predictions that the run kept for its test rows.

    Returns:
        a sentence about the largest difference, and a line for each feature of the run's data set that now has far more unknown or missing
        values than in training.

    Raises:
        UserError: the scores differ, although the scorer has fp32 rows.
    """
    config = load_config(inside(run, "config.yaml"))
    if not PATHS.exists(inside(run, PREDICTIONS)) or not PATHS.exists(join(config.data.path, "manifest.json")):
        return f"not checked: {run} kept no {PREDICTIONS} (metrics.predictions), or its data is not there"
    with PATHS.open(inside(run, PREDICTIONS), "rb") as file, np.load(file, allow_pickle=False) as kept:
        expected_N, order = kept["logit"], str(kept["order"])
        # Files of an older dmoe do not name the step.
        step = int(kept["step"]) if "step" in kept else None
    require_finite(expected_N, f"{join(run, PREDICTIONS)}: the logit", advice="evaluate the run again")
    one = Scorer(scorer, engine="torch")
    if step not in (None, one.about.step):
        return f"not checked: {PREDICTIONS} is of step {step:,}, this scorer of step {one.about.step:,}"
    manifest = load_manifest(config.data.path)
    skewed = skew_lines(one.about.shares, manifest, config.data.path)
    split = manifest.split(config.data.test_split)
    if order_name(split.shards) != order or split.rows != len(expected_N):
        return "\n".join([f"not checked: {config.data.path} has other test rows than {run} was tested on", *skewed])
    try:
        check_fits(one.about, manifest, config.data.path)
    except UserError as error:
        return "\n".join([f"not checked: {error}", *skewed])
    (found_N,), _ = _scored([one], config.data, rows)
    expected_N = expected_N[: len(found_N)].astype(np.float64)
    logit = float(np.abs(found_N - expected_N).max())
    score = float(np.abs(probabilities(found_N) - probabilities(expected_N)).max())
    if one.about.rows == "fp32" and not one.about.bf16 and logit > FP32_BOUND:
        message = f"{scorer}: its logits differ from the evaluation's by {logit:.2g} on {len(found_N):,} rows"
        raise UserError("; ".join([f"{message}; is {run}'s data still the same?", *skewed]))
    found = f"against the run's evaluation on {len(found_N):,} rows: logits differ by {logit:.2g} at most, probabilities by {score:.2g}"
    return "\n".join([found, *skewed])


def effect_on_test(run: str, scorer: str, rows: int) -> str:
    """How the ONNX file changes AUC and log loss on the run's test rows; empty if there are no labeled test rows."""
    data = load_config(inside(run, "config.yaml")).data
    if not PATHS.exists(join(data.path, "manifest.json")) or not load_manifest(data.path).split(data.test_split).labelled:
        return ""
    logits, label_N = _scored([Scorer(scorer, verify=False, engine=name) for name in ("torch", "onnx")], data, rows)
    assert label_N is not None
    told = []
    for found_N in logits:
        auc = ExactAUC()
        auc.update(torch.from_numpy(found_N), torch.from_numpy(label_N))
        told.append((float(auc.compute()), float(np.mean(np.logaddexp(0, found_N) - label_N * found_N))))
    before, after = told
    gains = f"AUC {after[0] - before[0]:+.6f} (of {before[0]:.5f}), logloss {after[1] - before[1]:+.6f} (of {before[1]:.5f})"
    return f"its effect on {len(label_N):,} test rows: {gains}"


def _scored(engines: list[Scorer], data: DataConfig, rows: int) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The logits of each scorer on at least `rows` test rows (all if there are fewer), [N] float64; and the labels [N] bool, if known."""
    batches, count = [], 0
    for batch in read_split(data.path, data.test_split, engines[0].about, 4096):
        batches.append(([one.logits(batch.dense_BI, batch.ids_BF, batch.bags) for one in engines], batch.label_B))
        count += len(batch.ids_BF)
        if count >= rows:
            break
    labels = [label_B for _, label_B in batches if label_B is not None]
    logits = [np.concatenate(parts).astype(np.float64) for parts in zip(*(found for found, _ in batches), strict=True)]
    return logits, np.concatenate(labels) if labels else None
