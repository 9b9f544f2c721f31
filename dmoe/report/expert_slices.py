"""Measures each expert of a mixture on slices of the test rows, with intervals, to show which expert is good at what.

Shapes: N test rows, M experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dmoe.errors import UserError
from dmoe.report.document import Bullets, Cell, Document, Note, Table
from dmoe.report.numbers import told
from dmoe.report.predictions import load_predictions
from dmoe.report.runs import Run, load_run, names_of
from dmoe.report.slices import column_of_test, frequency_groups, groups, has_auc, place_groups
from dmoe.report.statistics import CONFIDENCE, Interval, bootstrap, delong, holm, logloss_rows, normal_interval, placements

RESAMPLES = 1000


@dataclass(frozen=True)
class OfExpert:
    """The figures of an expert on a slice.

    Attributes:
        auc: AUC of the logit of the expert alone; None if a label is too rare.
        logloss: mean over rows of the expert's logloss minus the mixture's: the loss if only this expert were used.
        gate: mean gate of the expert.
        responsibility: mean of g_m p_m(y) / sum_n g_n p_n(y): the posterior weight of the expert, given the label.
    """

    auc: Interval | None
    logloss: Interval
    gate: float
    responsibility: float


@dataclass(frozen=True)
class ExpertSlice:
    """The figures of mixture and experts on a slice of the test rows.

    Attributes:
        auc: AUC of the mixture.
        ambiguity: mean of sum_m g_m BCE(p_m, y) - BCE(p, y): the gain of the mixture over an expert that is drawn with the gate's weights.
        lead: AUC of the best expert minus AUC of the second best one, tested on the same rows.
    """

    name: str
    rows: int
    auc: Interval | None
    ambiguity: Interval
    experts: list[OfExpert]
    lead: Interval | None

    @property
    def order(self) -> list[int]:
        """Indices of the experts, the highest AUC first; empty without AUCs."""
        return _order([one.auc for one in self.experts])


@dataclass(frozen=True)
class Experts:
    """The experts of a run, on all its test rows and on slices of them."""

    run: Run
    slices: list[ExpertSlice]


def experts_of_run(
    path: str, features: Sequence[str], values: int, frequencies: Sequence[str], parts: int, evaluation: str = ""
) -> Experts:
    """Reads the predictions of a run and measures its experts.

    Args:
        features: make slices by the values of each of these features.
        values: number of values of a feature that get their own slice, most frequent first. Numeric features are cut at quantiles.
        frequencies: make slices by the counts of the ids of each of these features.
        parts: number of equal parts of the rows, in the order of the files; 0 for no such slices.
        evaluation: name of a later evaluation, used instead of the test of the run.

    Raises:
        UserError: a run without predictions of its experts, an unknown feature, or only one label.
    """
    run, kept = load_run(path, evaluation or "metrics"), load_predictions(path, f"{evaluation or 'predictions'}.npz")
    if kept.expert_logit is None or kept.gate is None:
        raise UserError(
            f"{path}: kept no predictions of its experts; train it, or evaluate it, with --set metrics.predictions=true"
            " --set metrics.expert_predictions=true"
        )
    if len(names_of(run.config)) != kept.expert_logit.shape[1] or kept.gate.shape != kept.expert_logit.shape:
        raise UserError(f"{path}: predictions of {kept.expert_logit.shape[1]} experts, its config has {len(names_of(run.config))}")
    found = [("all rows", np.ones(len(kept.label), bool))]
    for feature in features:
        found += [(f"{feature}: {name}", rows_N) for name, rows_N in groups(column_of_test(run, feature, kept.order), values)]
    for feature in frequencies:
        found += [(f"{feature}: {name}", rows_N) for name, rows_N in frequency_groups(run, feature, kept.order)]
    found += place_groups(len(kept.label), parts)
    return Experts(run, [measure(name, kept.logit[n], kept.expert_logit[n], kept.gate[n], kept.label[n]) for name, n in found])


def measure(name: str, logit_N: np.ndarray, expert_NM: np.ndarray, gate_NM: np.ndarray, label_N: np.ndarray) -> ExpertSlice:
    """Measures mixture and experts on some rows.

    Args:
        logit_N: logits of the mixture.
        expert_NM: logits of each expert alone.
        label_N: bool.
    """
    loss_N = logloss_rows(logit_N, label_N)
    loss_NM = np.stack([logloss_rows(x_N, label_N) for x_N in expert_NM.T], 1)
    gate_NM = gate_NM.astype(np.float64)
    # p_m(y) = exp(-loss). The smallest loss of a row is subtracted first: if all experts are very wrong, all exp(-loss) would be 0.
    credit_NM = gate_NM * np.exp(loss_NM.min(1, keepdims=True) - loss_NM)
    credit_NM /= np.maximum(credit_NM.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    enough = has_auc(label_N)
    aucs = [_auc(x_N, label_N) if enough else None for x_N in (logit_N, *expert_NM.T)]
    experts = [
        OfExpert(auc, bootstrap(loss_NM[:, m] - loss_N, RESAMPLES), float(gate_NM[:, m].mean()), float(credit_NM[:, m].mean()))
        for m, auc in enumerate(aucs[1:])
    ]
    order = _order(aucs[1:])
    lead = delong(expert_NM[:, order[0]], expert_NM[:, order[1]], label_N) if len(order) > 1 else None
    ambiguity = bootstrap((gate_NM * loss_NM).sum(1) - loss_N, RESAMPLES)
    return ExpertSlice(name, len(label_N), aucs[0], ambiguity, experts, lead)


def _auc(score_N: np.ndarray, label_N: np.ndarray) -> Interval:
    found = placements(score_N, label_N)
    return normal_interval(found.mean, found.error, len(label_N))


def _order(aucs: Sequence[Interval | None]) -> list[int]:
    known = [(auc.mean, number) for number, auc in enumerate(aucs) if auc is not None]
    return [number for _, number in sorted(known, key=lambda pair: (-pair[0], pair[1]))]


def sentences(found: Experts) -> list[str]:
    """Sentences: where an expert is significantly better than all others (with Holm's correction), and where the mixture is worse than
    an expert drawn by the gate."""
    names, slices = _names(found.run), found.slices
    adjusted = holm([one.lead.p if one.lead else None for one in slices])
    leaders: dict[int, list[str]] = {}
    for one, p in zip(slices, adjusted, strict=True):
        if p is not None and p < 1 - CONFIDENCE:
            leaders.setdefault(one.order[0], []).append(one.name)
    lines = [f"{names[expert]} ranks best, beyond chance: {'; '.join(where)}." for expert, where in sorted(leaders.items())]
    if not leaders:
        lines.append("No expert ranks above all others beyond chance, on any slice.")
    elif len(leaders) == 1:
        lines.append("One expert leads wherever any does: these slices show no division of labour.")
    losing = [one.name for one in slices if one.ambiguity.sign < 0]
    if losing:
        lines.append(f"An expert drawn by the gate is better than the mixture, beyond chance: {'; '.join(losing)}.")
    return lines


def _names(run: Run) -> list[str]:
    return [f"{number} {name}" for number, name in enumerate(names_of(run.config))]


def slice_table(found: Experts) -> Table:
    """A table with a row for the mixture and each expert on each slice."""
    names = _names(found.run)
    head = ["slice", "rows", "ambiguity", "expert", "AUC alone", "logloss less mixture's", "gate", "responsibility"]
    adjusted, rows = holm([one.lead.p if one.lead else None for one in found.slices]), []
    for one, p in zip(found.slices, adjusted, strict=True):
        of_slice = [one.name, f"{one.rows:,}", told(one.ambiguity)]
        rows.append([*of_slice, "the mixture", told_level(one.auc), "", "", ""])
        for number, expert in enumerate(one.experts):
            best = p is not None and p < 1 - CONFIDENCE and one.order[0] == number
            own = Cell(told_level(expert.auc), "good" if best else "")
            rows.append([*of_slice, names[number], own, told(expert.logloss), f"{expert.gate:.3f}", f"{expert.responsibility:.3f}"])
    return Table(head, rows, f"Experts of {found.run.config.variant} on slices", words=(0, 3), same=3)


def told_level(auc: Interval | None) -> str:
    """An AUC with its interval."""
    if auc is None:
        return "too few of a label"
    return f"{auc.mean:.4f} [{auc.low:.4f}, {auc.high:.4f}]"


def experts_document(found: Experts) -> Document:
    """The page of the experts of a run."""
    explained = (
        "95% intervals over rows like these, for this one trained model: DeLong for AUC, bootstrap for logloss and ambiguity. Green:"
        " the expert ranks above the next one beyond chance, after Holm's correction for all slices. Ambiguity: mean of sum_m g_m"
        " BCE(p_m, y) less BCE(p, y), nats a row; below 0 the experts are better alone than mixed. Responsibility: the part of the"
        " label that the gate credits an expert with once it knows it."
    )
    sliced = slice_table(found)
    return Document(
        f"Experts of {found.run.config.variant}",
        [
            Bullets(sentences(found), "page"),
            replace(sliced, caption=""),
            Bullets(sentences(found), "text"),
            Note(explained, "faint", "page"),
        ],
    )
