"""One self-contained HTML page on some runs: their figures, curves and heat-maps."""

import html

from dmoe.report.html import bullets, document, figures, paragraph, table
from dmoe.report.indicators import warnings
from dmoe.report.plots import curves, heat_map
from dmoe.report.runs import Run
from dmoe.report.runs import table as figures_of


def page(runs: list[Run], title: str, notes: list[str] | None = None) -> str:
    """The page's text.

    Args:
        runs: in the order in which they are shown.
        notes: paragraphs below the table, plain text.
    """
    head, *rows = figures_of(runs)
    drawn = [
        ("Training loss", "train", "loss", "logloss"),
        ("Validation AUC", "validation", "auc", "AUC"),
        ("Validation CEC", "validation", "cec", "mean |r|"),
    ]
    parts = [
        table(head, rows),
        *(paragraph(note) for note in notes or []),
        "<h2>Curves</h2>",
        figures([curves(name, [_points(run, kind, key) for run in runs], "step", label) for name, kind, key, label in drawn]),
        "<h2>Correlation of the experts on the test rows</h2>",
        paragraph(
            "Mean |r| over the dimensions of each pair; on the diagonal the ceiling CEC(h, h), what an expert shows with itself."
            " Independent experts would show the floor.",
            "faint",
        ),
        figures([heat_map(run.config.variant, run.metrics["cec_matrix"], names_of(run)) for run in runs]),
        "<h2>Experts</h2>",
        *(_experts(run) for run in runs),
        "<h2>Runs</h2><ul>",
        *(f"<li>{html.escape(run.config.variant)}: <code>{html.escape(run.path)}</code></li>" for run in runs),
        "</ul>",
    ]
    return document(title, parts)


def names_of(run: Run) -> list[str]:
    """The kinds of a run's experts."""
    return [spec if isinstance(spec, str) else spec["kind"] for spec in run.config.model.experts]


def _points(run: Run, kind: str, key: str) -> tuple[str, list[float], list[float]]:
    rows = [row for row in run.history[kind] if row.get(key) is not None]
    return run.config.variant, [row["step"] for row in rows], [row[key] for row in rows]


def _experts(run: Run) -> str:
    metrics = run.metrics
    without = metrics.get("expert_left_out_auc") or [None] * len(names_of(run))
    logloss, credit = (metrics.get(f"expert_{name}") or [None] * len(names_of(run)) for name in ("logloss", "responsibility"))
    rows = [
        [
            f"{index} {name}",
            _number(metrics["expert_auc"][index], 4),
            _number(without[index], 4),
            _number(logloss[index], 4),
            _number(metrics["gate_mass"][index], 3),
            _number(credit[index], 3),
            _number(metrics["expert_variance"][index], 4),
            str(metrics["dead_dims"][index]),
        ]
        for index, name in enumerate(names_of(run))
    ]
    head = ["expert", "AUC alone", "AUC without it", "logloss alone", "gate mass", "responsibility", "variance", "dead dims"]
    found = warnings(metrics, names_of(run))
    return f"<h3>{html.escape(run.config.variant)}</h3>" + table(head, rows) + (bullets(found) if found else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"
