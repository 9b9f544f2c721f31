"""A log whose columns have the names that spoil modules, paths, patterns, tables and pictures, and the data set that is made of it."""

import csv
import random
from pathlib import Path
from typing import Any

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import parse_schema

LONG = "a very long name " * 20
TOKENS = (
    "user.id",
    "type",
    "items",
    "to",
    "float",
    "a/b",
    "..",
    "site",
    "site__0",
    "C1*",
    "tags[0]",
    "gerät=art",
    "=1+2",
    "😀",
    "_$x$",
    LONG,
)
BAGS = ("bag.list", "geo:city|x")
NUMBERS = ("keys", "d/1 $\\frac{")
SHARES = "0.6,0.2,0.2"
CATEGORICAL = (*TOKENS, *BAGS)


def make_odd(folder: Path, rows: int = 1400, **changes: Any) -> str:
    """Writes `log.csv` and the data set `d` of it, whose folder it returns."""
    draw = random.Random(0)
    columns = ["click", *TOKENS, *BAGS, *NUMBERS]
    with open(folder / "log.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for _ in range(rows):
            tokens = [f"t{draw.randrange(4 + place)}" for place in range(len(TOKENS))]
            bags = ["|".join(f"v{draw.randrange(5)}" for _ in range(draw.randrange(4))) for _ in BAGS]
            label = int(draw.random() < (0.2 if tokens[0] in ("t0", "t1") else 0.7))
            writer.writerow([label, *tokens, *bags, *(f"{draw.gauss(0, 1):.3f}" for _ in NUMBERS)])
    schema: dict[str, Any] = {
        "label": "click",
        "dense": list(NUMBERS),
        "categorical": [*TOKENS, *({"name": name, "separator": "|", "pooling": "mean"} for name in BAGS)],
    }
    options = {"min_count": 1, "rows_per_shard": 700, "row_group_rows": 128, "workers": 1, "split": SHARES, **changes}
    preprocess(Options([str(folder / "log.csv")], str(folder / "d"), schema=parse_schema(schema, "s.yaml"), where="s.yaml", **options))
    return str(folder / "d")
