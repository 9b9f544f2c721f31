"""The ladder's report as one HTML page."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dmoe.model.cost import Cost
from dmoe.report.cost_section import cost_plots, cost_table
from dmoe.report.html import Cell, bullets, document, figures, paragraph, table
from dmoe.report.indicators import findings
from dmoe.report.latency import Latency
from dmoe.report.plots import forest, heat_map, scatter, with_bars
from dmoe.report.results import Answers, Difference, Ladder, Result
from dmoe.report.statistics import holm
from dmoe.report.verdicts import doses, not_supported, plain, supported, told, verdict

FIGURES = [
    ("AUC", "auc", 4),
    ("logloss", "logloss", 4),
    ("NE", "ne", 4),
    ("calibration", "calibration", 3),
    ("CEC", "cec", 3),
    ("ceiling", "cec_ceiling", 3),
    ("within class", "cec_within_class", 3),
    ("CKA", "cka", 3),
    ("effective experts", "effective_experts", 2),
    ("info. abundance", "information_abundance.sets", 2),
]


def ladder_page(
    ladder: Ladder, answers: Answers, costs: dict[str, Cost], about: list[str], served: Mapping[str, Latency] | None = None
) -> str:
    """The page's text.

    Args:
        costs: of the variants by name; an ensemble's are its members' together.
        about: paragraphs on how it was made, plain text.
        served: latency of the variants' scorers.
    """
    served = served or {}
    parts = [
        *(paragraph(line, "faint") for line in about),
        "<h2>What the data supports</h2>",
        bullets(supported(ladder, answers)),
        "<h2>What it does not</h2>",
        bullets(not_supported(ladder, answers)),
        "<h2>Variants</h2>",
        _variants(ladder),
        paragraph(
            "Mean over seeds, ± half of the 95% interval of that mean (Student's t). CEC of independent experts: " + _floor(ladder),
            "faint",
        ),
        "<h2>Differences, paired by seed</h2>",
        _differences(ladder, [*answers.steps, *answers.whole[1:]], answers.controls),
        figures([_forest(ladder, answers.all)] if answers.all else []),
        "<h2>What it costs</h2>",
        cost_table(ladder, costs, served),
        figures(cost_plots(ladder, costs, served)),
        "<h2>CEC, AUC and alpha</h2>",
        figures([*_clouds(ladder), *_responses(ladder)]),
        "<h2>Correlation of the experts</h2>",
        paragraph("Mean |r| over the dimensions of each pair and over seeds; on the diagonal the ceiling CEC(h, h).", "faint"),
        figures(_heat_maps(ladder)),
        "<h2>Experts and indicators</h2>",
        _experts(ladder),
    ]
    return document(ladder.spec.title, parts)


def _floor(ladder: Ladder) -> str:
    values = [one.mean("cec_floor") for one in ladder.results.values() if one.values("cec_floor")]
    return f"{np.mean(values):.4f}." if values else "-."


def _variants(ladder: Ladder) -> str:
    head = ["variant", "seeds", *(title for title, _, _ in FIGURES)]
    best = max(ladder.results.values(), key=lambda one: one.mean("auc")).name
    rows = []
    for name, one in ladder.results.items():
        cells: list[str] = [one.label, str(len(one.seeds))]
        cells += [Cell(_figure(one, key, digits), "good" if key == "auc" and name == best else "") for _, key, digits in FIGURES]
        rows.append(cells)
    return table(head, rows)


def _figure(one: Result, key: str, digits: int) -> str:
    if key in ("cec", "cec_ceiling", "cec_within_class") and len(one.metrics[one.seeds[0]].get("gate_mass", [])) < 2:
        return "-"
    interval = one.interval(key)
    if interval.low is None or interval.high is None:
        return plain(interval.mean, digits)
    return f"{interval.mean:.{digits}f} ± {(interval.high - interval.low) / 2:.{digits}f}"


def _differences(ladder: Ladder, rungs: Sequence[Difference], controls: Sequence[Difference]) -> str:
    head = [
        "variant",
        "against",
        "AUC is",
        "AUC over seeds",
        "AUC over rows",
        "p (seeds)",
        "logloss over seeds",
        "logloss over rows",
        "CEC",
    ]
    rows = []
    for group, asked_together in ((rungs, False), (controls, True)):
        p_values = [one.auc.p for one in group]
        for one, p in zip(group, holm(p_values) if asked_together else p_values, strict=True):
            said = verdict(one, p if asked_together else None)
            kind = {"higher": "good", "lower": "bad"}.get(said, "faint")
            cells = [ladder.spec.label(one.variant), Cell(ladder.spec.label(one.against), "words"), Cell(said, f"words {kind}")]
            cells += [told(one.auc), told(one.auc_rows), "-" if p is None else f"{p:.2g}", told(one.logloss), told(one.logloss_rows)]
            rows.append([*cells, told(one.cec, 3) if one.cec else "-"])
    return table(head, rows) + paragraph(
        "95% intervals. Over seeds: Student's t on the paired differences. Over rows: DeLong for AUC, bootstrap for logloss,"
        " of the mean over seeds."
        " P-values of the controls are Holm's, for as many questions; those of the rungs are single.",
        "faint",
    )


def _forest(ladder: Ladder, every: Sequence[Difference]) -> str:
    rows = []
    for one in every:
        low, high = (one.auc_rows.low, one.auc_rows.high) if one.auc.low is None else (one.auc.low, one.auc.high)
        rows.append((f"{ladder.spec.label(one.variant)} - {ladder.spec.label(one.against)}", one.auc.mean, low or 0.0, high or 0.0))
    return forest("Differences of AUC over seeds, 95%", rows, "AUC")


def _clouds(ladder: Ladder) -> list[str]:
    mixed = [one for one in ladder.results.values() if len(one.metrics[one.seeds[0]].get("gate_mass", [])) > 1]
    groups = [(one.label, one.values("cec"), one.values("auc")) for one in mixed]
    return [scatter("CEC against AUC, a point a seed", groups, "CEC", "AUC")] if mixed else []


def _responses(ladder: Ladder) -> list[str]:
    found = doses(ladder)
    if len(found) < 2 or not ladder.spec.dose:
        return []
    x = [dose for dose, _ in found]
    drawn = []
    for key, title in (("auc", "AUC"), ("cec", "CEC"), ("logloss", "logloss")):
        intervals = [one.interval(key) for _, one in found]
        halves = [0.0 if i.low is None or i.high is None else (i.high - i.low) / 2 for i in intervals]
        drawn.append(with_bars(f"{title} over {ladder.spec.dose.key}", x, [i.mean for i in intervals], halves, ladder.spec.dose.key, title))
    return drawn


def _heat_maps(ladder: Ladder) -> list[str]:
    drawn = []
    for one in ladder.results.values():
        matrices = [one.metrics[seed]["cec_matrix"] for seed in one.seeds if len(one.metrics[seed].get("cec_matrix", [])) > 1]
        if matrices:
            drawn.append(heat_map(one.label, np.mean(matrices, 0).tolist(), kinds(one), top=0.5))
    return drawn


def kinds(one: Result) -> list[str]:
    """The kinds of a variant's experts."""
    return [spec if isinstance(spec, str) else str(spec["kind"]) for spec in one.config.model.experts] if one.config else []


def _experts(ladder: Ladder) -> str:
    head = ["variant", "expert", "AUC alone", "AUC lost without it", "gate mass", "variance", "dead dims"]
    rows, found = [], []
    for one in ladder.results.values():
        names = kinds(one)
        if len(names) < 2:
            continue
        for index, kind in enumerate(names):
            rows.append([one.label, Cell(f"{index} {kind}", "words"), *_expert_cells(one, index)])
        found += [f"{one.label}: {line}" for line in _over_seeds(one, names)]
    nothing = "No expert is dead, shrunk, starved, at chance, harmful, or a copy of another."
    return (bullets(found) if found else paragraph(nothing)) + table(head, rows)


def _over_seeds(one: Result, names: list[str]) -> list[str]:
    """Each finding once, with its first seed's figures, and in how many seeds it is there."""
    said: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for seed in one.seeds:
        for finding in findings(one.metrics[seed], names):
            said.setdefault((finding.kind, finding.experts), []).append(finding.says)
    return [f"{lines[0]} (in {len(lines)} of {len(one.seeds)} seeds)" for lines in said.values()]


def _expert_cells(one: Result, index: int) -> list[str]:
    def mean(values: list[float | None]) -> float:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else math.nan

    metrics = [one.metrics[seed] for seed in one.seeds]
    without = [
        m["auc"] - m["expert_left_out_auc"][index]
        for m in metrics
        if m.get("expert_left_out_auc") and m["expert_left_out_auc"][index] is not None
    ]
    cells = [plain(mean([m["expert_auc"][index] for m in metrics]), 4), "-" if not without else f"{np.mean(without):+.4f}"]
    cells += [plain(mean([m["gate_mass"][index] for m in metrics]), 3), plain(mean([m["expert_variance"][index] for m in metrics]), 4)]
    return [*cells, plain(mean([m["dead_dims"][index] for m in metrics]), 1)]
