"""The figures of a ladder: the runs of each variant by seed, ensembles of them, and paired differences between variants.

Shapes: N test rows.
"""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from dmoe.config.config import Config
from dmoe.errors import UserError
from dmoe.report.ladder.runner import Job
from dmoe.report.ladder.spec import LadderSpec
from dmoe.report.predictions import load_predictions
from dmoe.report.runs import load_run
from dmoe.report.statistics import Interval, Placements, bootstrap, equivalence, holm, logloss_rows, normal_interval, placements, t_interval


@dataclass
class Result:
    """Measured figures of a variant by seed. `config` is that of one seed; None for an ensemble."""

    name: str
    label: str
    config: Config | None
    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)
    logits: dict[int, np.ndarray] = field(default_factory=dict)
    placed: dict[int, Placements] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        return sorted(self.metrics)

    def values(self, key: str) -> list[float]:
        """Values of a figure for the seeds that have it. `a.b` is key b of the dict a. Lists are averaged."""
        found = [_dig(self.metrics[seed], key) for seed in self.seeds]
        return [value for value in found if value is not None and math.isfinite(value)]

    def mean(self, key: str) -> float:
        values = self.values(key)
        return float(np.mean(values)) if values else math.nan

    def mean_of_expert(self, key: str, index: int) -> float:
        """Mean over the seeds of a figure that each expert has; NaN if none is known."""
        values = [self.metrics[seed][key][index] for seed in self.seeds if self.metrics[seed].get(key)]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else math.nan

    def interval(self, key: str) -> Interval:
        return t_interval(self.values(key))


def _dig(metrics: dict[str, Any], key: str) -> float | None:
    value: Any = metrics
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, list):
        numbers = [item for item in value if item is not None]
        return float(np.mean(numbers)) if numbers else None
    return None if value is None else float(value)


@dataclass(frozen=True)
class Difference:
    """Figures of `variant` minus those of `against`. Intervals over seeds pair the runs of a seed and hold the test rows fixed. Intervals
    over rows hold the trained models fixed, and are for the mean over seeds on another sample of rows.

    Attributes:
        within: margin of equality that a control asks for.
        p_holm: p-value over seeds with Holm's correction for all controls of the ladder; None for a rung, which is asked alone.
    """

    variant: str
    against: str
    question: str
    auc: Interval
    auc_rows: Interval
    logloss: Interval
    logloss_rows: Interval
    cec: Interval | None
    within: float | None = None
    p_holm: float | None = None

    @property
    def p_equal(self) -> float | None:
        """P-value of two one-sided tests for an AUC difference within +-`within`: the larger of seeds and rows. None without `within`."""
        tests = [equivalence(one, self.within) for one in (self.auc, self.auc_rows)] if self.within else []
        known = [p for p in tests if p is not None]
        return max(known) if known and len(known) == len(tests) else None

    @property
    def sign(self) -> int:
        """1 or -1 if the AUC difference is significant over seeds and over rows, otherwise 0."""
        return self.auc.sign if self.auc.sign == self.auc_rows.sign else 0


@dataclass(frozen=True)
class Answers:
    """Differences of each rung to the previous one (steps), of each rung to the first one (whole), and of the controls. Comparisons
    without runs are left out."""

    steps: list[Difference]
    whole: list[Difference]
    controls: list[Difference]

    @property
    def all(self) -> list[Difference]:
        return [*self.steps, *self.whole[1:], *self.controls]


@dataclass
class Ladder:
    """Results of a ladder by variant, in the order of the specification, and the labels [N] of the test rows."""

    spec: LadderSpec
    results: dict[str, Result]
    label: np.ndarray
    missing: list[str]


def collect(spec: LadderSpec, jobs: list[Job]) -> Ladder:
    """Reads the finished runs and makes the ensembles.

    Raises:
        UserError: no run is finished, or runs were tested on different rows.
    """
    results: dict[str, Result] = {}
    label, order, first, missing = None, "", "", []
    for job in jobs:
        if not job.finished:
            missing.append(job.name)
            continue
        run, kept = load_run(job.run), load_predictions(job.run)
        if label is None:
            label, order, first = kept.label, kept.order, job.run
        elif order != kept.order or not np.array_equal(label, kept.label):
            raise UserError(f"{job.run} was tested on other rows than {first}; a ladder's runs need one test split")
        result = results.setdefault(job.variant, Result(job.variant, spec.label(job.variant), run.config))
        result.metrics[job.seed] = run.metrics | {"expert_dim": run.config.model.expert_dim}
        result.metrics[job.seed] |= {"cka": off_diagonal(run.metrics["cka_matrix"]), "cec_ceiling": diagonal(run.metrics["cec_matrix"])}
        result.logits[job.seed], result.placed[job.seed] = kept.logit, placements(kept.logit, kept.label)
    if label is None:
        raise UserError("no run of the ladder is finished, so there is nothing to report")
    for name, one in spec.ensembles.items():
        members = [results[member] for member in one.of if member in results]
        if len(members) == len(one.of):
            results[name] = _ensemble(name, one.label, members, label)
    in_order = {name: results[name] for name in [*spec.variants, *spec.ensembles] if name in results}
    return Ladder(spec, in_order, label, missing)


def off_diagonal(matrix: list[list[float]]) -> float | None:
    x = np.array(matrix)
    return float(x[np.triu_indices(len(x), 1)].mean()) if len(x) > 1 else None


def diagonal(matrix: list[list[float]]) -> float:
    return float(np.diagonal(np.array(matrix)).mean())


def _ensemble(name: str, label: str, members: list[Result], labels_N: np.ndarray) -> Result:
    result = Result(name, label, None)
    rate = float(labels_N.mean())
    base = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    for seed in sorted(set.intersection(*(set(member.seeds) for member in members))):
        logit_N = np.mean([member.logits[seed].astype(np.float64) for member in members], 0)
        placed, loss = placements(logit_N, labels_N), float(logloss_rows(logit_N, labels_N).mean())
        figures = {"auc": placed.mean, "logloss": loss, "ne": loss / base, "rows": len(labels_N)}
        figures["calibration"] = float((1 / (1 + np.exp(-logit_N))).mean() / rate)
        result.metrics[seed], result.logits[seed], result.placed[seed] = figures, logit_N, placed
    return result


def compare(ladder: Ladder, variant: str, against: str, question: str = "") -> Difference | None:
    """The paired difference of two variants. None if one of them has no run, or if they have no common seed."""
    a, b = ladder.results.get(variant), ladder.results.get(against)
    seeds = sorted(set(a.seeds) & set(b.seeds)) if a and b else []
    if not a or not b or not seeds:
        return None
    places, losses = None, np.zeros(len(ladder.label))
    for seed in seeds:
        step = (a.placed[seed] - b.placed[seed]).scaled(1 / len(seeds))
        places = step if places is None else places + step
        losses += (logloss_rows(a.logits[seed], ladder.label) - logloss_rows(b.logits[seed], ladder.label)) / len(seeds)
    assert places is not None
    several = all(len(one.metrics[seed].get("gate_mass", [])) > 1 for one in (a, b) for seed in seeds)
    return Difference(
        variant,
        against,
        question,
        auc=_over_seeds(a, b, seeds, "auc"),
        auc_rows=normal_interval(places.mean, places.error, len(ladder.label)),
        logloss=_over_seeds(a, b, seeds, "logloss"),
        logloss_rows=bootstrap(losses),
        cec=_over_seeds(a, b, seeds, "cec") if several else None,
    )


def answer(ladder: Ladder) -> Answers:
    """Makes all comparisons of the specification."""
    rungs = [name for name in ladder.spec.rungs if name in ladder.results]
    steps = [compare(ladder, after, before) for before, after in pairwise(rungs)]
    whole = steps[:1] + [compare(ladder, name, rungs[0]) for name in rungs[2:]]
    asked = [(one.within, compare(ladder, one.variant, one.against, one.question)) for one in ladder.spec.controls]
    known = [(within, one) for within, one in asked if one is not None]
    adjusted = holm([one.auc.p for _, one in known])
    controls = [replace(one, within=within, p_holm=p) for (within, one), p in zip(known, adjusted, strict=True)]
    return Answers(*([one for one in group if one is not None] for group in (steps, whole, controls)))


def _over_seeds(a: Result, b: Result, seeds: list[int], key: str) -> Interval:
    pairs = [(_dig(a.metrics[seed], key), _dig(b.metrics[seed], key)) for seed in seeds]
    return t_interval([one - other for one, other in pairs if one is not None and other is not None])
