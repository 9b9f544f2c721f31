"""Compares two runs on the same test rows: paired tests, slices by a feature, and the size of an online test.

Shapes: N test rows.
"""

from dataclasses import dataclass

import numpy as np

from dmoe.errors import UserError
from dmoe.report.ab_test import AbTest, sizes
from dmoe.report.document import Bullets, Document, Figures, Forest, Heading, Note, Table
from dmoe.report.indicators import warnings
from dmoe.report.numbers import told
from dmoe.report.predictions import Predicted, load_predictions
from dmoe.report.runs import Run, load_run, names_of
from dmoe.report.slices import column_of_test, groups, has_auc
from dmoe.report.statistics import Interval, bootstrap, delong, holm, logloss_rows


@dataclass(frozen=True)
class Slice:
    """The comparison on the rows with one value of a feature."""

    feature: str
    value: str
    rows: int
    auc: Interval | None
    logloss: Interval


@dataclass(frozen=True)
class Compared:
    """The comparison of two runs. Differences are run a minus run b."""

    a: Run
    b: Run
    auc: Interval
    logloss: Interval
    slices: list[Slice]
    online: list[AbTest]


def compare_runs(run_a: str, run_b: str, features: list[str], values: int, share: float, evaluation: str = "") -> Compared:
    """Compares the predictions of two runs.

    Args:
        features: make slices by each of these features.
        values: number of values of a feature that get their own slice, most frequent first. Numeric features are cut at quantiles.
        share: share of the candidates that a ranking shows.
        evaluation: name of a later evaluation of both runs, used instead of the tests of the runs.

    Raises:
        UserError: a run without predictions, different test rows, an unknown feature.
    """
    a, b = (load_run(run, evaluation or "metrics") for run in (run_a, run_b))
    of_a, of_b = (load_predictions(run, f"{evaluation or 'predictions'}.npz") for run in (run_a, run_b))
    _check_same_rows(run_a, run_b, of_a, of_b)
    labels_N = of_a.label
    if min(int(labels_N.sum()), int((~labels_N).sum())) < 2:
        raise UserError(f"{run_a}: the test rows hold one label only, so there is no AUC to compare")
    loss_a, loss_b = logloss_rows(of_a.logit, labels_N), logloss_rows(of_b.logit, labels_N)
    slices: list[Slice] = []
    for feature in features:
        slices += _slices(a, feature, values, of_a, of_b, loss_a - loss_b)
    return Compared(
        a,
        b,
        auc=delong(of_a.logit, of_b.logit, labels_N),
        logloss=bootstrap(loss_a - loss_b),
        slices=slices,
        online=sizes(of_a.logit, of_b.logit, loss_a, loss_b, labels_N, share),
    )


def _check_same_rows(run_a: str, run_b: str, a: Predicted, b: Predicted) -> None:
    if a.order != b.order or len(a.label) != len(b.label) or not np.array_equal(a.label, b.label):
        raise UserError(
            f"{run_b}: tested on other rows than {run_a} ({len(b.label):,} and {len(a.label):,}), and a paired test needs the same;"
            " evaluate both on one data set with python -m dmoe.evaluate --data D --output NAME.json, then compare with --evaluation NAME"
        )


def _slices(run: Run, feature: str, values: int, a: Predicted, b: Predicted, difference_N: np.ndarray) -> list[Slice]:
    column_N = column_of_test(run, feature, a.order)
    found = []
    for value, rows_N in groups(column_N, values):
        labels = a.label[rows_N]
        auc = delong(a.logit[rows_N], b.logit[rows_N], labels) if has_auc(labels) else None
        found.append(Slice(feature, value, int(rows_N.sum()), auc, bootstrap(difference_N[rows_N], resamples=1000)))
    return found


def sentences(found: Compared) -> list[str]:
    """The results of the comparison as sentences."""
    lines = []
    for what, interval, better in (("AUC", found.auc, 1), ("logloss", found.logloss, -1)):
        word = {better: "better", -better: "worse", 0: "not resolved"}[interval.sign]
        p = "" if interval.p is None else f", p = {interval.p:.2g}"
        lines.append(f"{what} of {found.a.config.variant} less {found.b.config.variant}: {told(interval, 5)}{p}: {word}.")
    lines.append(
        f"{found.auc.count:,} paired rows. The intervals speak of these two trained models on other rows like these; whether the"
        " strategies differ takes several seeds: dmoe report ladder."
    )
    return lines


FIGURES = ["auc", "logloss", "ne", "calibration", "cec", "cec_floor", "ambiguity", "effective_experts"]
FIGURES += ["samples_per_second", "eval_samples_per_second"]


def compare_document(found: Compared) -> Document:
    """The page of a comparison."""
    runs = found.a, found.b
    figures = [[key, *("-" if run.metrics.get(key) is None else f"{run.metrics[key]:,.5g}" for run in runs)] for key in FIGURES]
    online = [[one.kind, "no difference" if one.rows is None else f"{one.rows:,}", f"{one.difference:+.6f}"] for one in found.online]
    adjusted = holm([one.auc.p if one.auc else None for one in found.slices])
    slices = [
        [
            f"{one.feature}: {one.value}",
            f"{one.rows:,}",
            told(one.auc) if one.auc else "too few of a label",
            told(one.logloss),
            "-" if p is None else f"{p:.2g}",
        ]
        for one, p in zip(found.slices, adjusted, strict=True)
    ]
    drawn = [(f"{s.feature}: {s.value}", s.auc.mean, s.auc.low or 0.0, s.auc.high or 0.0) for s in found.slices if s.auc]
    return Document(
        f"{found.a.config.variant} beside {found.b.config.variant}",
        [
            Table(["figure", *(run.path for run in runs)], figures),
            Bullets(sentences(found)),
            Note("95% intervals: DeLong for AUC, bootstrap over rows for logloss.", "faint", "page"),
            Heading("The online test that this would need"),
            Table(["online test, power .8 at two-sided .05", "impressions an arm", "difference"], online),
            Bullets([f"{one.kind}: {one.says}" for one in found.online], "page"),
            Heading("Slices"),
            Table(["slice", "rows", "AUC", "logloss", "p of AUC, Holm"], slices),
            Figures([Forest("AUC by slice, 95%", "AUC", drawn)]),
            Heading("Experts"),
            Bullets([f"{run.config.variant}: {line}" for run in runs for line in warnings(run.metrics, names_of(run.config))], "page"),
        ],
    )
