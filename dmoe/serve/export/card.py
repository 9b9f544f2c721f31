"""The model card of a scorer: training data, test metrics, sizes, config and versions. It is part of scorer.json and written as CARD.md."""

from collections.abc import Mapping
from math import prod
from typing import Any

from pydantic import Field

from dmoe.checkpoint.index import Index
from dmoe.config.config import Config
from dmoe.config.strict import Strict, Text
from dmoe.data.dataset.manifest import Manifest
from dmoe.json_text import parse_json
from dmoe.model.budget.sizes import human
from dmoe.storage.paths import PATHS, inside, read_bounded
from dmoe.version import __version__

FILE = "CARD.md"
FIGURES = ("rows", "auc", "logloss", "ne", "calibration")
MAX_BYTES = 64 << 20


class Card(Strict):
    """The content of a model card.

    Attributes:
        dataset: name of the data set.
        rows: split -> number of rows.
        figures: name in FIGURES -> value on test data: for a run, that of its best checkpoint (empty until the run has ended); for a
            version of dmoe online, that of its window.
        table_parameters, dense_parameters: numbers of parameters.
        config: the config of the run.
        versions: package -> version used in training, and the dmoe version that exported the scorer.
    """

    dataset: Text
    rows: dict[str, int]
    figures: dict[str, float | None]
    table_parameters: int = Field(ge=0)
    dense_parameters: int = Field(ge=0)
    config: dict[str, Any]
    versions: dict[str, str]


def make_card(run: str, config: Config, manifest: Manifest, index: Index, dense: int, figures: Mapping[str, Any]) -> Card:
    """Makes the card of a checkpoint.

    Args:
        dense: number of parameters that are not in tables.
        figures: test metrics of the checkpoint; only FIGURES are kept.
    """
    kept = _read(inside(run, "environment.json")).get("versions")
    versions = {str(name): str(version) for name, version in kept.items()} if isinstance(kept, dict) else {}
    return Card(
        dataset=manifest.dataset,
        rows={name: split.rows for name, split in manifest.splits.items()},
        figures={name: float(figures[name]) for name in FIGURES if isinstance(figures.get(name), int | float)},
        table_parameters=sum(prod(shape) for shape in index.tables.values()),
        dense_parameters=dense,
        # Without the run directory, so that the card does not depend on it.
        config=config.model_dump(mode="json", exclude={"run": {"dir"}}),
        versions=versions | {"exported by dmoe": __version__},
    )


def run_figures(run: str) -> dict[str, Any]:
    """The test metrics of a run's best checkpoint; empty if the run has not ended."""
    return _read(inside(run, "metrics.json"))


def _read(path: str) -> dict[str, Any]:
    """The content of a JSON file of a run; empty if it is missing or damaged, because an export must not fail only for its card."""
    if not PATHS.exists(path):
        return {}
    try:
        tree = parse_json(read_bounded(path, MAX_BYTES, "run's file"), undefined_is_null=True)
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}


def as_markdown(card: Card, variant: str, step: int, rows: str, experts: list[str]) -> str:
    """The card as the text of CARD.md.

    Args:
        rows: number format of the table rows: fp32, fp16, int8 or pq.
        experts: the kind of each expert.
    """
    lines = [f"# {variant}", "", f"Click-through rate, a mixture of {len(experts)}: {', '.join(experts)}. Step {step:,}.", ""]
    rows_of = ", ".join(f"{name} {count:,} rows" for name, count in card.rows.items())
    lines += [f"Trained on {card.dataset}{f': {rows_of}' * bool(rows_of)}.", ""]
    if card.figures:
        lines += ["| test | |", "| --- | --- |"]
        lines += [
            f"| {name} | {int(value or 0):,} |" if name == "rows" else f"| {name} | {value:.5f} |" for name, value in card.figures.items()
        ]
        lines.append("")
    # No size for pq rows: it also depends on their codebooks.
    width = {"fp32": 4, "fp16": 2, "int8": 1}.get(rows)
    size = f", {human(width * card.table_parameters)}" if width else ""
    lines += [f"Tables: {card.table_parameters:,} numbers, {rows}{size}. Dense part: {card.dense_parameters:,} numbers.", ""]
    lines += [f"Versions: {', '.join(f'{name} {version}' for name, version in card.versions.items())}. The config is in scorer.json.", ""]
    return "\n".join(lines)
