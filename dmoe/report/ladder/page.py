"""The page of a ladder."""

from collections.abc import Mapping, Sequence

import numpy as np

from dmoe.model.budget.cost import Cost
from dmoe.model.budget.sizes import human
from dmoe.report.document import Block, Bullets, Cell, Chart, Document, Figures, Forest, Heading, HeatMap, Note, Series, Table
from dmoe.report.indicators import findings
from dmoe.report.ladder.results import Answers, Difference, Ladder, Result
from dmoe.report.ladder.verdicts import doses, not_supported, supported, verdict
from dmoe.report.latency import BATCHES, FASTEST, Latency
from dmoe.report.numbers import level, plain, signed, told
from dmoe.report.runs import names_of

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
EXPERT_FIGURES = [("expert_auc", 4), ("gate_mass", 3), ("expert_variance", 4), ("dead_dims", 1)]


def ladder_document(
    ladder: Ladder, answers: Answers, costs: dict[str, Cost], about: list[str], served: Mapping[str, Latency] | None = None
) -> Document:
    """The page of a ladder.

    Args:
        costs: cost of each variant by name. The cost of an ensemble is the sum over its members.
        about: paragraphs of plain text on how the ladder was made.
        served: latencies of the scorers of the variants.
    """
    served = served or {}
    mean = "Mean over seeds, ± half of the 95% interval of that mean (Student's t). CEC of independent experts: "
    return Document(
        ladder.spec.title,
        [
            *(Note(line, "faint") for line in about),
            Heading("What the data supports"),
            Bullets(supported(ladder, answers)),
            Heading("What it does not"),
            Bullets(not_supported(ladder, answers)),
            Heading("Variants"),
            _variants(ladder),
            Note(mean + _floor(ladder), "faint"),
            Heading("Differences, paired by seed"),
            *_differences(ladder, answers.all),
            Figures([_forest(ladder, answers.all)]),
            Heading("What it costs"),
            *_costs(ladder, costs, served),
            Heading("CEC, AUC and alpha"),
            Figures([*_clouds(ladder), *_responses(ladder)]),
            Heading("Correlation of the experts"),
            Note("Mean |r| over the dimensions of each pair and over seeds; on the diagonal the ceiling CEC(h, h).", "faint", "page"),
            Figures(_heat_maps(ladder)),
            Heading("Experts and indicators"),
            *_experts(ladder),
        ],
    )


def _floor(ladder: Ladder) -> str:
    values = [one.mean("cec_floor") for one in ladder.results.values() if one.values("cec_floor")]
    return f"{np.mean(values):.4f}." if values else "-."


def _variants(ladder: Ladder) -> Table:
    head = ["variant", "seeds", *(title for title, _, _ in FIGURES)]
    best = max(ladder.results.values(), key=lambda one: one.mean("auc")).name
    rows = []
    for name, one in ladder.results.items():
        cells: list[str] = [one.label, str(len(one.seeds))]
        cells += [Cell(_figure(one, key, digits), "good" if key == "auc" and name == best else "") for _, key, digits in FIGURES]
        rows.append(cells)
    return Table(head, rows)


def _figure(one: Result, key: str, digits: int) -> str:
    if key in ("cec", "cec_ceiling", "cec_within_class") and len(one.metrics[one.seeds[0]].get("gate_mass", [])) < 2:
        return "-"
    return level(one.interval(key), digits)


def _differences(ladder: Ladder, differences: Sequence[Difference]) -> list[Block]:
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
    for one in differences:
        said, p = verdict(one), one.auc.p if one.p_holm is None else one.p_holm
        kind = {"higher": "good", "lower": "bad"}.get(said, "faint")
        cells = [ladder.spec.label(one.variant), ladder.spec.label(one.against), Cell(said, kind)]
        cells += [told(one.auc), told(one.auc_rows), "-" if p is None else f"{p:.2g}", told(one.logloss), told(one.logloss_rows)]
        rows.append([*cells, told(one.cec, 3) if one.cec else "-"])
    explained = (
        "95% intervals. Over seeds: Student's t on the paired differences. Over rows: DeLong for AUC, bootstrap for logloss, of the mean"
        " over seeds. P-values of the controls are Holm's, for as many questions; those of the rungs are single."
    )
    return [Table(head, rows, words=(0, 1, 2)), Note(explained, "faint")]


def _forest(ladder: Ladder, every: Sequence[Difference]) -> Forest:
    rows = []
    for one in every:
        low, high = (one.auc_rows.low, one.auc_rows.high) if one.auc.low is None else (one.auc.low, one.auc.high)
        rows.append((f"{ladder.spec.label(one.variant)} - {ladder.spec.label(one.against)}", one.auc.mean, low or 0.0, high or 0.0))
    return Forest("Differences of AUC over seeds, 95%", "AUC", rows)


def _costs(ladder: Ladder, costs: dict[str, Cost], served: Mapping[str, Latency]) -> list[Block]:
    """A table of the gain over the first rung, parameters, FLOPs, bytes, training speed and, if it was measured, scoring speed."""
    first = ladder.results.get(ladder.spec.rungs[0])
    head = ["variant", "AUC gained", "embedding params", "dense params", "MFLOP/row", "tables", "scorer, int8 rows", "training samples/s"]
    head += ["1 row, ms", "256 rows, ms", "scored rows/s"] if served else []
    rows = []
    for name, one in ladder.results.items():
        cost, latency = costs.get(name), served.get(name)
        cells = [one.label, signed(one.mean("auc") - first.mean("auc")) if first else "-"]
        if cost:
            cells += [f"{cost.embedding_parameters:,}", f"{cost.dense_parameters:,}", f"{cost.total_flops / 1e6:.2f}"]
            cells += [human(cost.embedding_bytes), human(cost.scorer_bytes("int8"))]
        else:
            cells += ["-"] * 5
        cells.append(plain(one.mean("samples_per_second"), 0))
        if latency:
            cells += [
                plain(latency.milliseconds(1, FASTEST), 2),
                plain(latency.milliseconds(256, FASTEST), 1),
                plain(latency.rows_a_second(FASTEST), 0),
            ]
        rows.append([*cells, *["-"] * (len(head) - len(cells))])
    words = "Gained: mean over seeds, against the first rung. FLOPs are of a row's forward pass. Training was measured beside other runs."
    words += " frontier.html draws AUC against each price."
    if served:
        words += (
            " Scoring: the fastest call of the first seed's run, exported with fp32 rows, one thread, all scorers in turns on this machine;"
            f" rows/s at {max(BATCHES):,} rows a call; an ensemble's members one after another."
        )
    return [Table(head, rows), Note(words, "faint")]


def _clouds(ladder: Ladder) -> list[Chart]:
    mixed = [one for one in ladder.results.values() if len(one.metrics[one.seeds[0]].get("gate_mass", [])) > 1]
    groups = [Series(one.label, one.values("cec"), one.values("auc")) for one in mixed]
    return [Chart("CEC against AUC, a point a seed", "CEC", "AUC", groups, cloud=True)]


def _responses(ladder: Ladder) -> list[Chart]:
    found = doses(ladder)
    if len(found) < 2 or not ladder.spec.dose:
        return []
    # Doses are drawn at equal distances, since a logarithmic axis has no 0.
    places, drawn = range(len(found)), []
    doses_ = [(at, f"{dose:g}") for at, (dose, _) in enumerate(found)]
    for key, title in (("auc", "AUC"), ("cec", "CEC"), ("logloss", "logloss")):
        intervals = [one.interval(key) for _, one in found]
        low, high = ([i.mean if end is None else end for i, end in ((i, getattr(i, side)) for i in intervals)] for side in ("low", "high"))
        series = [Series(title, places, [i.mean for i in intervals], low, high)]
        drawn.append(Chart(f"{title} over {ladder.spec.dose.key}", ladder.spec.dose.key, title, series, x_names=doses_))
    return drawn


def _heat_maps(ladder: Ladder) -> list[HeatMap]:
    drawn = []
    for one in ladder.results.values():
        matrices = [one.metrics[seed]["cec_matrix"] for seed in one.seeds if len(one.metrics[seed].get("cec_matrix", [])) > 1]
        if matrices:
            drawn.append(HeatMap(one.label, np.mean(matrices, 0).tolist(), names_of(one.config), top=0.5))
    return drawn


def _experts(ladder: Ladder) -> list[Block]:
    head = ["variant", "expert", "AUC alone", "AUC lost without it", "gate mass", "variance", "dead dims"]
    rows, found = [], []
    for one in ladder.results.values():
        names = names_of(one.config)
        if len(names) < 2:
            continue
        for index, kind in enumerate(names):
            lost = [
                m["auc"] - m["expert_left_out_auc"][index]
                for m in one.metrics.values()
                if m.get("expert_left_out_auc") and m["expert_left_out_auc"][index] is not None
            ]
            figures = [plain(one.mean_of_expert(key, index), digits) for key, digits in EXPERT_FIGURES]
            figures.insert(1, signed(float(np.mean(lost))) if lost else "-")
            rows.append([one.label, f"{index} {kind}", *figures])
        found += [f"{one.label}: {line}" for line in _over_seeds(one, names)]
    nothing = "No expert is dead, shrunk, starved, at chance, harmful, or a copy of another."
    return [Bullets(found) if found else Note(nothing), Table(head, rows, words=(0, 1))]


def _over_seeds(one: Result, names: list[str]) -> list[str]:
    """Each finding once, with the figures of the first seed that has it and the number of seeds that have it."""
    said: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for seed in one.seeds:
        for finding in findings(one.metrics[seed], names):
            said.setdefault((finding.kind, finding.experts), []).append(finding.says)
    return [f"{lines[0]} (in {len(lines)} of {len(one.seeds)} seeds)" for lines in said.values()]
