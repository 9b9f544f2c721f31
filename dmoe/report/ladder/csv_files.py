"""Writes the figures of a ladder as CSV: one file with a line per run, one with a line per comparison."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from dmoe.json_text import defined
from dmoe.model.budget.cost import Cost
from dmoe.names import cell
from dmoe.report.ladder.results import Answers, Ladder
from dmoe.report.ladder.verdicts import verdict
from dmoe.report.latency import BATCHES, FASTEST, Latency

CSV_KEYS = [
    "auc",
    "logloss",
    "ne",
    "calibration",
    "cec",
    "cec_floor",
    "cec_ceiling",
    "cec_within_class",
    "cec_by_class",
    "cec_by_class_floor",
]
CSV_KEYS += ["cec_by_class_ceiling", "cka", "gate_mass", "effective_experts", "gate_perplexity", "expert_auc", "expert_left_out_auc"]
CSV_KEYS += ["ambiguity", "ambiguity_even", "expert_logloss"]
CSV_KEYS += ["expert_variance", "dead_dims", "samples_per_second", "train_seconds", "eval_samples_per_second", "rows"]


def ladder_csv(ladder: Ladder, costs: dict[str, Cost], served: Mapping[str, Latency]) -> str:
    """CSV with a line per run: all figures that the page averages. Lists are written as `a b c`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    priced = ["embedding_parameters", "dense_parameters", "flops_per_row", "embedding_bytes", "table_state_bytes", "lookups"]
    timed = [*(f"fastest_milliseconds_{rows}_rows" for rows in BATCHES), "scorer_rows_per_second", "scorer_bytes"]
    writer.writerow(["variant", "label", "seed", *CSV_KEYS, "information_abundance", *priced, *timed])
    for name, one in ladder.results.items():
        cost = costs.get(name)
        prices: list[Any] = [""] * len(priced)
        if cost:
            prices = [
                cost.embedding_parameters,
                cost.dense_parameters,
                cost.total_flops,
                cost.embedding_bytes,
                cost.table_state_bytes,
                cost.lookups,
            ]
        latency = served.get(name)
        times = (
            [*(latency.milliseconds(rows, FASTEST) for rows in BATCHES), latency.rows_a_second(FASTEST), latency.size]
            if latency
            else [""] * len(timed)
        )
        for seed in one.seeds:
            metrics = one.metrics[seed]
            if len(metrics.get("gate_mass", [])) < 2:
                # A single expert has no correlation with another one; its 0 would look like a result.
                metrics = {key: value for key, value in metrics.items() if not key.startswith(("cec", "cka"))}
            abundance = (metrics.get("information_abundance") or {}).get("sets")
            figures = [*(_csv(metrics.get(key)) for key in CSV_KEYS), _csv(abundance), *prices, *map(_csv, times)]
            writer.writerow([cell(name), cell(one.label), seed, *figures])
    return out.getvalue()


def _csv(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_csv(item) for item in value)
    value = defined(value)
    if value is None or isinstance(value, int):
        return "" if value is None else str(value)
    return f"{value:.10g}" if isinstance(value, float) else cell(str(value))


def differences_csv(answers: Answers) -> str:
    """CSV with a line per comparison, with all its intervals. `p_holm` and `p_equal` (within +-`within`) are empty where they were not
    asked for."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["auc_seeds", "auc_rows", "logloss_seeds", "logloss_rows", "cec_seeds"]
    ends = [f"{name}{part}" for name in names for part in ("", "_low", "_high", "_p")]
    writer.writerow(["kind", "variant", "against", *ends, "p_holm", "within", "p_equal", "verdict"])
    for kind, group in zip(("step", "from the first", "control"), (answers.steps, answers.whole, answers.controls), strict=True):
        for one in group:
            intervals = [one.auc, one.auc_rows, one.logloss, one.logloss_rows, one.cec]
            cells = [_csv(getattr(i, part) if i else None) for i in intervals for part in ("mean", "low", "high", "p")]
            cells += map(_csv, (one.p_holm, one.within, one.p_equal))
            writer.writerow([kind, cell(one.variant), cell(one.against), *cells, cell(verdict(one))])
    return out.getvalue()
