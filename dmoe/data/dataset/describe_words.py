"""A data set's description as text, at most 100 columns wide."""

import textwrap
from collections.abc import Sequence

from dmoe.data.dataset.describe import OPTIMIZERS, Description, table_bytes
from dmoe.names import clip, printable

DIMS = (8, 16, 32, 64, 128)
LONGEST_NAME = 32
"""Longer names of features are cut, so that a table line has at most 100 columns."""


def size(count: float) -> str:
    """`12.3 MB`, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def split_rows(description: Description) -> list[list[str]]:
    """split, rows, label rate, shards, row groups, bytes on disk, bytes a row."""
    return [
        [
            split.name,
            f"{split.rows:,}",
            percent(split.rate),
            f"{split.shards:,}",
            f"{split.row_groups:,}",
            size(split.bytes),
            f"{split.bytes / split.rows:.1f}" if split.rows else "-",
        ]
        for split in description.splits
    ]


SPLIT_HEAD = ["split", "rows", "label rate", "shards", "row groups", "on disk", "B a row"]
FEATURE_HEAD = ["feature", "ids", "missing", "rare", "top 1", "top 10", "top 100", "effective", "a dim"]


def feature_rows(description: Description) -> list[list[str]]:
    """feature, ids, shares of rows, effective ids, and the bytes of its table's weights for each embedding dimension."""
    return [
        [
            feature.name,
            f"{feature.cardinality:,}",
            percent(feature.missing),
            percent(feature.rare),
            *(percent(feature.share_of_top(k)) for k in (1, 10, 100)),
            "-" if feature.effective is None else f"{feature.effective:,.1f}",
            size(feature.cardinality * 4),
        ]
        for feature in description.features
    ]


MEMORY_HEAD = ["embedding dim", *OPTIMIZERS]


def memory_rows(description: Description) -> list[list[str]]:
    """For each dimension, the bytes of all tables with each optimizer."""
    return [[str(dim), *(size(count) for count in table_bytes(description.ids, dim).values())] for dim in DIMS]


def day_rows(description: Description) -> list[list[str]]:
    return [[name, f"{rows:,}", percent(positives / rows if rows else None)] for name, rows, positives in description.days]


def as_lines(description: Description) -> list[str]:
    """The whole description as lines of text."""
    lines = [f"{description.folder}: {description.dataset}, {sum(split.rows for split in description.splits):,} rows"]
    lines += ["", *_table(SPLIT_HEAD, split_rows(description))]
    if description.notes:
        lines += ["", *(line for note in description.notes for line in textwrap.wrap(note, 100, subsequent_indent="  "))]
    if description.days:
        lines += ["", *_table(["day", "rows", "label rate"], day_rows(description))]
    dense = [[name, percent(missing), transform] for name, transform, missing in description.dense]
    lines += ["", *_table(["dense", "missing", "is"], dense)]
    lines += ["", *_table(FEATURE_HEAD, feature_rows(description))]
    lines += [f"top k: share of rows of the k most frequent ids, by {description.skew_from};"]
    lines += ["effective: e to the entropy of the ids; a dim: float32 weights for each embedding dimension"]
    lines += ["", f"memory of all tables, one embedding a feature, {description.ids:,} rows:"]
    lines += _table(MEMORY_HEAD, memory_rows(description))
    lines += ["  ".join(f"{name}: {what}" for name, what in OPTIMIZERS.items())]
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Formats a table. The first column is aligned to the left, all others to the right."""
    whole = [[clip(row[0], LONGEST_NAME), *row[1:]] for row in [head, *rows]]
    widths = [max(len(row[at]) for row in whole) for at in range(len(head))]
    made = []
    for row in whole:
        cells = [cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))]
        made.append(printable("  ".join(cells).rstrip())[:100])
    return made
