"""Who of a mixture's experts is good at what: every expert on slices of the test rows, with intervals.

Shapes: N test rows, M experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dmoe.errors import UserError
from dmoe.report.document import Bullets, Cell, Document, Note, Table
from dmoe.report.results import load_predictions
from dmoe.report.runs import Run, load_run, names_of
from dmoe.report.slices import column_of_test, frequency_groups, groups, place_groups
from dmoe.report.statistics import CONFIDENCE, Interval, bootstrap, delong, holm, logloss_rows, normal_interval, placements
from dmoe.report.verdicts import told

MIN_OF_A_LABEL = 20
"""Rows of each label that a slice needs for an AUC that says anything."""
RESAMPLES = 1000


@dataclass(frozen=True)
class OfExpert:
    """An expert on a slice.

    Attributes:
        auc: of its own logit; None where a label is too rare.
        logloss: its own less the mixture's, a row: what the mixture would lose by listening to it alone.
        gate: its mean weight.
        responsibility: mean of g_m p_m(y) / sum_n g_n p_n(y): the part of the label that the gate, once it knows it, credits it with.
    """

    auc: Interval | None
    logloss: Interval
    gate: float
    responsibility: float


@dataclass(frozen=True)
class ExpertSlice:
    """Some of the test rows.

    Attributes:
        auc: of the mixture.
        ambiguity: mean of sum_m g_m BCE(p_m, y) - BCE(p, y), what the mixture gains there over an expert drawn by its gate.
        lead: AUC of the expert that ranks best there less the next one's, tested on the same rows.
    """

    name: str
    rows: int
    auc: Interval | None
    ambiguity: Interval
    experts: list[OfExpert]
    lead: Interval | None

    @property
    def order(self) -> list[int]:
        """The experts' numbers, the one that ranks best first; none where there is no AUC."""
        return _order([one.auc for one in self.experts])


@dataclass(frozen=True)
class Experts:
    """A run's experts on all its test rows, and on slices of them."""

    run: Run
    slices: list[ExpertSlice]


def experts_of_run(
    path: str, features: Sequence[str], values: int, frequencies: Sequence[str], parts: int, evaluation: str = ""
) -> Experts:
    """Reads a run's predictions and measures its experts.

    Args:
        features: slices by the values of each of these.
        values: of a feature that get a slice of their own, most frequent first; numeric features are cut at quantiles.
        frequencies: slices by how often the ids of each of these were seen.
        parts: equal stretches of the rows in the files' order; 0 for none.
        evaluation: name of a later evaluation, in place of the run's own test.

    Raises:
        UserError: a run without the experts' predictions, an unknown feature, or one label only.
    """
    run, kept = load_run(path, evaluation or "metrics"), load_predictions(path, f"{evaluation or 'predictions'}.npz")
    if kept.expert_logit is None or kept.gate is None:
        raise UserError(
            f"{path}: kept no predictions of its experts; train it, or evaluate it, with --set metrics.predictions=true"
            " --set metrics.expert_predictions=true"
        )
    if len(names_of(run)) != kept.expert_logit.shape[1] or kept.gate.shape != kept.expert_logit.shape:
        raise UserError(f"{path}: predictions of {kept.expert_logit.shape[1]} experts, its config has {len(names_of(run))}")
    found = [("all rows", np.ones(len(kept.label), bool))]
    for feature in features:
        found += [(f"{feature}: {name}", rows_N) for name, rows_N in groups(column_of_test(run, feature, kept.order), values)]
    for feature in frequencies:
        found += [(f"{feature}: {name}", rows_N) for name, rows_N in frequency_groups(run, feature, kept.order)]
    found += place_groups(len(kept.label), parts)
    return Experts(run, [measure(name, kept.logit[n], kept.expert_logit[n], kept.gate[n], kept.label[n]) for name, n in found])


def measure(name: str, logit_N: np.ndarray, expert_NM: np.ndarray, gate_NM: np.ndarray, label_N: np.ndarray) -> ExpertSlice:
    """Experts and mixture on some rows.

    Args:
        logit_N: the mixture's.
        expert_NM: of each expert alone.
        label_N: bool.
    """
    loss_N = logloss_rows(logit_N, label_N)
    loss_NM = np.stack([logloss_rows(x_N, label_N) for x_N in expert_NM.T], 1)
    gate_NM = gate_NM.astype(np.float64)
    # p_m(y) = exp(-loss); the smallest loss is taken out first, so that a row of sure and wrong experts is no 0 / 0.
    credit_NM = gate_NM * np.exp(loss_NM.min(1, keepdims=True) - loss_NM)
    credit_NM /= np.maximum(credit_NM.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    enough = min(int(label_N.sum()), int((~label_N).sum())) >= MIN_OF_A_LABEL
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
    """Where an expert ranks above all others beyond chance, for so many slices, and where the mixture does not pay."""
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
    return [f"{number} {name}" for number, name in enumerate(names_of(run))]


def slice_table(found: Experts) -> Table:
    """Every expert, and the mixture, on each slice."""
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
    """The view of a run's experts."""
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
