"""The columns of Criteo's click logs in their order, and the names of the features of the schema `criteo`.

A raw line is `label, I1..I13, C1..C26`, tab-separated, without a header. The schema makes 13 dense features and 39 categorical ones: the
26 token columns, then one bucket feature for each integer column.
"""

from pathlib import Path

INTEGERS = tuple(f"I{i}" for i in range(1, 14))
TOKENS = tuple(f"C{i}" for i in range(1, 27))
COLUMNS = INTEGERS + TOKENS
BUCKETS = tuple(f"{name}_bucket" for name in INTEGERS)
CATEGORICAL = TOKENS + BUCKETS
FIELDS = ("label", *COLUMNS)


def read_rows(log: str | Path, most: int) -> list[dict[str, str]]:
    """The first rows of a log, without their labels."""
    with open(log) as file:
        return [dict(zip(COLUMNS, line.rstrip("\n").split("\t")[1:], strict=True)) for line, _ in zip(file, range(most), strict=False)]
