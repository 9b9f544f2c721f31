"""A finished run, read back from its directory."""

import json
from dataclasses import dataclass
from typing import Any

from dmoe.config import Config, load_config
from dmoe.errors import UserError
from dmoe.paths import PATHS, inside


@dataclass(frozen=True)
class Run:
    """A run's config, its final figures, and the lines of its metrics.jsonl by kind (`train`, `validation`)."""

    path: str
    config: Config
    metrics: dict[str, Any]
    history: dict[str, list[dict[str, Any]]]


def load_run(path: str, evaluation: str = "metrics") -> Run:
    """Reads a run's directory.

    Args:
        evaluation: name of the figures to take: the run's own, or those of a later `dmoe.evaluate --output NAME.json`.

    Raises:
        UserError: no run there, or one that has not ended.
    """
    if not PATHS.exists(inside(path, "config.yaml")):
        raise UserError(f"{path}: no run there (no config.yaml)")
    if evaluation != "metrics" and not PATHS.exists(inside(path, f"{evaluation}.json")):
        raise UserError(f"{path}: no {evaluation}.json there; make it with python -m dmoe.evaluate --run {path} --output {evaluation}.json")
    if not PATHS.exists(inside(path, "metrics.json")):
        raise UserError(f"{path}: the run has not ended (no metrics.json); train it to its end, with --resume if it was stopped")
    history: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    try:
        with PATHS.open(inside(path, f"{evaluation}.json"), "r") as file:
            metrics = json.loads(file.read())
        with PATHS.open(inside(path, "metrics.jsonl"), "r") as file:
            for line in file:
                row = json.loads(line)
                history.setdefault(row["kind"], []).append(row)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise UserError(f"{path}: its metrics are damaged ({error})") from None
    return Run(path, load_config(inside(path, "config.yaml")), metrics, history)


COLUMNS = [
    ("AUC", "auc", "{:.4f}"),
    ("logloss", "logloss", "{:.4f}"),
    ("NE", "ne", "{:.4f}"),
    ("CEC", "cec", "{:.4f}"),
    ("CEC floor", "cec_floor", "{:.4f}"),
    ("samples/s", "samples_per_second", "{:,.0f}"),
]


def table(runs: list[Run]) -> list[list[str]]:
    """A header and a row a run: the figures of the test split, as text."""
    rows = [["variant", *(title for title, _, _ in COLUMNS)]]
    for run in runs:
        values = [run.metrics.get(key) for _, key, _ in COLUMNS]
        texts = ["-" if value is None else form.format(value) for value, (_, _, form) in zip(values, COLUMNS, strict=True)]
        rows.append([run.config.variant, *texts])
    return rows


def as_text(rows: list[list[str]]) -> str:
    """The rows in columns: the first to the left, figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
