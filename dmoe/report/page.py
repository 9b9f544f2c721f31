"""One self-contained HTML page on some runs: their figures, curves and heat-maps."""

import html
import io
from collections.abc import Callable
from typing import Any

from dmoe.report.runs import Run, table

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #6b7280; --line: #d9dee5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #15181c; --faint: #9aa3af; --line: #333a44; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; } td { font-variant-numeric: tabular-nums; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; background: #fff; border-radius: 6px; padding: .4rem; }
figure svg { max-width: 100%; height: auto; display: block; } p, li { max-width: 75ch; } .faint { color: var(--faint); }
.scroll { overflow-x: auto; }
"""


def page(runs: list[Run], title: str, notes: list[str] | None = None) -> str:
    """The page's text.

    Args:
        runs: in the order in which they are shown.
        notes: paragraphs below the table, plain text.
    """
    head, *rows = table(runs)
    curves = [
        ("Training loss", lambda run: _points(run, "train", "loss"), "step", "logloss"),
        ("Validation AUC", lambda run: _points(run, "validation", "auc"), "step", "AUC"),
        ("Validation CEC", lambda run: _points(run, "validation", "cec"), "step", "mean |r|"),
    ]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _table(head, rows),
        *(f"<p>{html.escape(note)}</p>" for note in notes or []),
        "<h2>Curves</h2><div class='figures'>",
        *(f"<figure>{_curves(runs, *curve)}</figure>" for curve in curves),
        "</div><h2>Correlation of the experts on the test rows</h2>",
        "<p class='faint'>Mean |r| over the dimensions of each pair; on the diagonal the ceiling CEC(h, h), what an expert shows with"
        " itself. Independent experts would show the floor.</p><div class='figures'>",
        *(f"<figure>{_heat_map(run)}</figure>" for run in runs),
        "</div><h2>Experts</h2>",
        *(_experts(run) for run in runs),
        "<h2>Runs</h2><ul>",
        *(f"<li>{html.escape(run.config.variant)}: <code>{html.escape(run.path)}</code></li>" for run in runs),
        "</ul>",
    ]
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _points(run: Run, kind: str, key: str) -> tuple[list[float], list[float]]:
    rows = [row for row in run.history[kind] if row.get(key) is not None]
    return [row["step"] for row in rows], [row[key] for row in rows]


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"


def _experts(run: Run) -> str:
    names = [spec if isinstance(spec, str) else spec["kind"] for spec in run.config.model.experts]
    metrics = run.metrics
    rows = [
        [
            f"{index} {name}",
            _number(metrics["expert_auc"][index], 4),
            _number(metrics["gate_mass"][index], 3),
            _number(metrics["expert_variance"][index], 4),
            str(metrics["dead_dims"][index]),
        ]
        for index, name in enumerate(names)
    ]
    return f"<h3>{html.escape(run.config.variant)}</h3>" + _table(["expert", "AUC alone", "gate mass", "variance", "dead dims"], rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def _curves(runs: list[Run], title: str, points: Callable[[Run], tuple[list[float], list[float]]], x_label: str, y_label: str) -> str:
    figure, axes = _figure(5.2, 3.4)
    for run in runs:
        axes.plot(*points(run), marker=".", label=run.config.variant)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return _svg(figure)


def _heat_map(run: Run) -> str:
    matrix = run.metrics["cec_matrix"]
    names = [spec if isinstance(spec, str) else spec["kind"] for spec in run.config.model.experts]
    figure, axes = _figure(1.6 + 0.75 * len(matrix), 1.2 + 0.75 * len(matrix))
    top = max(max(row) for row in matrix) or 1
    axes.imshow(matrix, vmin=0, vmax=top, cmap="viridis")
    for row, line in enumerate(matrix):
        for column, value in enumerate(line):
            ink = "white" if value < 0.6 * top else "black"
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(run.config.variant, fontsize=10)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    # Without a date and with fixed ids the page is a function of the runs alone.
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "dmoe"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
