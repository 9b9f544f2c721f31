"""One self-contained HTML page on a data set: its splits, features, skew and memory."""

import html
from typing import Any

from dmoe.data.dataset.describe import Description
from dmoe.data.dataset.describe_words import (
    FEATURE_HEAD,
    MEMORY_HEAD,
    SPLIT_HEAD,
    day_rows,
    feature_rows,
    memory_rows,
    percent,
    split_rows,
)
from dmoe.report.html import document, figures, paragraph, table
from dmoe.report.plots import COLOURS, curves, draw, literal


def data_page(description: Description) -> str:
    """The page's text."""
    dense = [[name, percent(missing), transform] for name, transform, missing in description.dense]
    drawn = [_cardinalities(description), _missing(description)]
    drawn += [_skew(description)] if any(feature.top for feature in description.features) else []
    drawn += [_label_rates(description)]
    parts = [
        "<h2>Splits</h2>",
        table(SPLIT_HEAD, split_rows(description)),
        *(["<h2>Days</h2>", table(["day", "rows", "label rate"], day_rows(description))] if description.days else []),
        "<h2>Pictures</h2>",
        figures(drawn),
        "<h2>Categorical features</h2>",
        paragraph(
            f"Top k: the share of rows of the k most frequent ids, by {description.skew_from}. Effective: e to the entropy of the ids."
            " A dim: float32 weights for each embedding dimension.",
            "faint",
        ),
        table(FEATURE_HEAD, feature_rows(description)),
        "<h2>Dense features</h2>",
        table(["dense", "missing", "is"], dense),
        "<h2>Memory of all tables</h2>",
        paragraph(f"{description.ids:,} rows, one float32 embedding a feature, with the table optimiser's state.", "faint"),
        table(MEMORY_HEAD, memory_rows(description)),
        *([f"<h2>Made by</h2><p><code>{html.escape(description.command)}</code></p>"] if description.command else []),
    ]
    return document(f"{description.dataset}: {description.folder}", parts)


def _bars(title: str, x_label: str, series: list[tuple[str, list[float]]], names: list[str], log: bool = False) -> str:
    """Stacked bars, a row a feature."""

    def paint(axes: Any) -> None:
        left = [0.0] * len(names)
        for index, (label, values) in enumerate(series):
            axes.barh(range(len(names)), values, left=None if log else left, color=COLOURS[index], label=label)
            left = [before + value for before, value in zip(left, values, strict=True)]
        axes.set_yticks(range(len(names)), [literal(name) for name in names], fontsize=7)
        axes.invert_yaxis()
        if log:
            axes.set_xscale("log")
        axes.set(title=title, xlabel=x_label)
        axes.grid(axis="x")
        if len(series) > 1:
            axes.legend(fontsize=8)

    return draw(5.2, 1.4 + 0.15 * len(names), paint)


def _cardinalities(description: Description) -> str:
    names = [feature.name for feature in description.features]
    return _bars("Ids of each feature", "ids", [("ids", [float(f.cardinality) for f in description.features])], names, log=True)


def _missing(description: Description) -> str:
    features = description.features
    shares = [("missing", [100 * f.missing for f in features]), ("rare", [100 * f.rare for f in features])]
    return _bars("Missing and rare", "% of rows", shares, [feature.name for feature in features])


def _skew(description: Description) -> str:
    """The six features of the most ids: how few of them have how much of the rows."""
    largest = sorted((f for f in description.features if f.top), key=lambda f: -f.cardinality)[:6]

    def paint(axes: Any) -> None:
        for index, feature in enumerate(largest):
            points = feature.top or []
            x, y = [k for k, _ in points], [100 * share for _, share in points]
            axes.plot(x, y, marker=".", color=COLOURS[index], label=literal(feature.name))
        axes.set_xscale("log")
        axes.set(title="Skew of the largest features", xlabel="most frequent ids", ylabel="% of rows")
        axes.grid()
        axes.legend(fontsize=8)

    return draw(5.2, 3.4, paint)


def _label_rates(description: Description) -> str:
    """By day where days are known, else along the shards."""
    if description.days:
        rates = [100 * positives / max(rows, 1) for _, rows, positives in description.days]
        lines = [("all rows", [float(at) for at in range(len(rates))], rates)]
        return curves("Label rate by day", lines, "day", "% of rows")
    lines = [
        (split.name, [float(at) for at in range(len(split.rates))], [100 * rate for rate in split.rates]) for split in description.splits
    ]
    return curves("Label rate by shard", [line for line in lines if line[1]], "shard", "% of rows")
