"""Generated logs for the tests, and what preprocessing must make of them, in plain Python."""

import csv
import math
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import Schema, load_schema, parse_schema

TREE: dict[str, Any] = {
    "label": {"column": "clicked", "positive": "yes"},
    "time": {"column": "at", "format": "%Y-%m-%d %H:%M:%S"},
    "weight": "w",
    "group": "user",
    "missing": ["NULL"],
    "dense": [{"name": "price", "transform": "log1p"}, {"name": "age", "transform": "standardise"}, "raw"],
    "categorical": [
        "site",
        {"name": "who", "column": "user"},
        {"name": "tags", "separator": "|", "pooling": "mean", "max_values": 3, "min_count": 2},
        {"name": "hour", "part": "hour"},
        {"name": "weekday", "part": "weekday"},
        {"name": "is_weekend", "part": "is_weekend"},
    ],
}
COLUMNS = ("at", "clicked", "w", "user", "price", "age", "raw", "site", "tags", "unused")


def make_rows(rows: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows with missing values, tokens in UTF-8, with quotes and delimiters, and times in no order."""
    draw = random.Random(seed)
    made = []
    for number in range(rows):
        made.append(
            {
                "at": f"2024-01-{draw.randrange(1, 29):02d} {draw.randrange(24):02d}:00:00",
                "clicked": draw.choice(["yes", "no", "no"]),
                "w": draw.choice(["1", "0.5", "2"]),
                "user": f"u{draw.randrange(20)}",
                "price": draw.choice(["", "NULL", "3.5", "-2", "1e3", "0"]),
                "age": str(draw.randrange(18, 80)),
                "raw": draw.choice(["0.25", "-7", ""]),
                "site": draw.choice(["", "NULL", "a,b", 'say "hi"', "größe", "x", "y", f"rare{number}"]),
                "tags": "|".join(draw.choice(["t1", "t2", "t3", "", f"once{number}"]) for _ in range(draw.randrange(6))),
                "unused": "z",
            }
        )
    return made


def write_csv(path: Path, rows: list[dict[str, str]], delimiter: str = ",", header: bool = True) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)


def write_avazu(path: Path, rows: int, seed: int = 0) -> None:
    """A log of the form of Avazu's."""
    draw = random.Random(seed)
    names = [one.name for one in load_schema("avazu_x4").categorical if not one.part]
    with open(path, "w") as file:
        file.write(f"id,click,hour,{','.join(names)}\n")
        for row in range(rows):
            tokens = ",".join(f"{draw.randrange(40) ** 2:08x}" for _ in names)
            file.write(f"{row},{int(draw.random() < 0.2)},1410{draw.randrange(21, 31)}{draw.randrange(24):02d},{tokens}\n")


def schema(**changes: Any) -> Schema:
    return parse_schema({key: value for key, value in (TREE | changes).items() if value is not None}, "schema.yaml")


def make(folder: Path, log: Path, **options: Any) -> Path:
    settings = {"schema": schema(), "where": "schema.yaml", "min_count": 3, "rows_per_shard": 64, "row_group_rows": 16, "workers": 1}
    preprocess(Options(**{"inputs": [str(log)], "output": str(folder), **settings, **options}))
    return folder


def read_split(folder: Path, split: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((folder / split).glob("*.parquet")):
        found += pq.read_table(path).to_pylist()
    return found


def data_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def expected(
    rows: list[dict[str, str]], split_of: list[str], min_count: int = 3
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, int]]]:
    """(rows of each split as the shards hold them, without the group; token -> id of each feature)."""

    def tokens(row: dict[str, str], name: str) -> list[str]:
        when = datetime.strptime(row["at"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        if name in ("hour", "weekday", "is_weekend"):
            day = int(when.strftime("%w"))
            return [str({"hour": when.hour, "weekday": day, "is_weekend": int(day in (0, 6))}[name])]
        if name == "tags":
            return [token for token in row["tags"].split("|") if token][:3]
        value = row["user" if name == "who" else name]
        return [] if value in ("", "NULL") else [value]

    names = [one if isinstance(one, str) else one["name"] for one in TREE["categorical"]]
    train = [row for row, split in zip(rows, split_of, strict=True) if split == "train"]
    ids = {}
    for name in names:
        counts = Counter(token for row in train for token in tokens(row, name))
        least = 2 if name == "tags" else min_count
        kept = sorted((token for token in counts if counts[token] >= least), key=lambda token: (-counts[token], token.encode()))
        ids[name] = {token: 2 + place for place, token in enumerate(kept)}
    ages = [float(row["age"]) for row in train]
    mean = sum(ages) / len(ages)
    deviation = math.sqrt(sum((age - mean) ** 2 for age in ages) / len(ages))
    splits: dict[str, list[dict[str, Any]]] = {}
    for row, split in zip(rows, split_of, strict=True):
        price = 0.0 if row["price"] in ("", "NULL") else float(row["price"])
        made: dict[str, Any] = {
            "label": int(row["clicked"] == "yes"),
            "price": math.copysign(math.log1p(abs(price)), price),
            "age": (float(row["age"]) - mean) / deviation,
            "raw": float(row["raw"] or 0),
            "@weight": float(row["w"]),
        }
        for name in names:
            found = [ids[name].get(token, 1) for token in tokens(row, name)] or [0]
            made[name] = found if name == "tags" else found[0]
        splits.setdefault(split, []).append(made)
    return splits, ids
