"""Writes the figures of a ladder as CSV: one file with a line per run, one with a line per comparison."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dmoe.json_text import defined
from dmoe.model.budget.cost import Cost
from dmoe.names import cell
from dmoe.report.ladder.results import Answers, Ladder
from dmoe.report.ladder.verdicts import verdict
from dmoe.report.latency import BATCHES, FASTEST, Latency

FIGURES = ["auc", "logloss", "ne", "calibration", "cec", "cec_floor", "cec_ceiling", "cec_within_class", "cec_by_class"]
FIGURES += ["cec_by_class_floor", "cec_by_class_ceiling", "cka", "gate_mass", "effective_experts", "gate_perplexity", "expert_auc"]
FIGURES += ["expert_left_out_auc", "ambiguity", "ambiguity_even", "expert_logloss", "expert_variance", "dead_dims"]
FIGURES += ["samples_per_second", "train_seconds", "eval_samples_per_second", "rows"]
PRICES = ["embedding_parameters", "dense_parameters", "total_flops", "embedding_bytes", "table_state_bytes", "lookups"]
"""Attributes of `Cost`."""
PRICE_COLUMNS = ["flops_per_row" if name == "total_flops" else name for name in PRICES]
TIMES = [*(f"fastest_milliseconds_{rows}_rows" for rows in BATCHES), "scorer_rows_per_second", "scorer_bytes"]
INTERVALS = {"auc_seeds": "auc", "auc_rows": "auc_rows", "logloss_seeds": "logloss", "logloss_rows": "logloss_rows", "cec_seeds": "cec"}
"""Start of a column's name -> attribute of `Difference`."""


def ladder_csv(ladder: Ladder, costs: dict[str, Cost], served: Mapping[str, Latency]) -> str:
    """CSV with a line per run: all figures that the page averages. Lists are written as `a b c`."""
    rows = []
    for name, one in ladder.results.items():
        of_variant: dict[str, Any] = {"variant": name, "label": one.label}
        if cost := costs.get(name):
            of_variant |= {column: getattr(cost, key) for column, key in zip(PRICE_COLUMNS, PRICES, strict=True)}
        if latency := served.get(name):
            times = [*(latency.milliseconds(rows, FASTEST) for rows in BATCHES), latency.rows_a_second(FASTEST), latency.size]
            of_variant |= dict(zip(TIMES, times, strict=True))
        for seed in one.seeds:
            metrics = one.metrics[seed]
            figures = {key: metrics.get(key) for key in FIGURES}
            if len(metrics.get("gate_mass", [])) < 2:
                # A single expert has no correlation with another one; its 0 would look like a result.
                figures = {key: value for key, value in figures.items() if not key.startswith(("cec", "cka"))}
            abundance = (metrics.get("information_abundance") or {}).get("sets")
            rows.append(of_variant | {"seed": seed, "information_abundance": abundance} | figures)
    return _as_csv(["variant", "label", "seed", *FIGURES, "information_abundance", *PRICE_COLUMNS, *TIMES], rows)


def differences_csv(answers: Answers) -> str:
    """CSV with a line per comparison, with all its intervals. `p_holm` and `p_equal` (within +-`within`) are empty where they were not
    asked for."""
    ends = {"": "mean", "_low": "low", "_high": "high", "_p": "p"}
    tests = ["p_holm", "within", "p_equal"]
    rows = []
    for kind, group in (("step", answers.steps), ("from the first", answers.whole), ("control", answers.controls)):
        for one in group:
            row = {"kind": kind, "variant": one.variant, "against": one.against, "verdict": verdict(one)}
            row |= {name: getattr(one, name) for name in tests}
            for start, name in INTERVALS.items():
                if interval := getattr(one, name):
                    row |= {start + end: getattr(interval, key) for end, key in ends.items()}
            rows.append(row)
    columns = [start + end for start in INTERVALS for end in ends]
    return _as_csv(["kind", "variant", "against", *columns, *tests, "verdict"], rows)


def _as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    value = defined(value)
    if value is None or isinstance(value, int):
        return "" if value is None else str(value)
    return f"{value:.10g}" if isinstance(value, float) else cell(str(value))
