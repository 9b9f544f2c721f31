"""Logs of three schemas, Criteo's, Avazu's and one with bags, weights, groups, times and buckets, and their rows in plain Python."""

import csv
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import Result, preprocess
from dmoe.data.prepare.schema import Categorical, Schema, load_schema
from dmoe.testing.synthesize import synthesize
from tests.log_files import contents
from tests.unit.data.log.logs import TREE, make_rows, schema, write_avazu, write_csv
from tests.unit.data.reference import COLUMNS, MASK, mix

KINDS = ["criteo", "avazu", "any"]
OTHERS = [one for one in TREE["categorical"] if not isinstance(one, dict) or one["name"] != "tags"]
BAGS = {"name": "tags", "separator": "|", "pooling": "mean", "max_values": 3}
ANY = [*OTHERS, BAGS, {"name": "bucket", "column": "age", "bucket": "log2", "type": "int"}]

CROSSES = {
    "criteo": {"hex": ("C1", "C17"), "bucket": ("I5_bucket", "C9"), "three": ("C6", "I1_bucket", "C20")},
    "avazu": {"text": ("site_id", "app_category"), "time": ("hour", "banner_pos"), "three": ("is_weekend", "C18", "weekday")},
    "any": {"text": ("site", "user"), "number": ("bucket", "hour", "site"), "column": ("site", "unused")},
}
"""Among the parts: columns that no feature reads, or that one reads under another name."""

Days = tuple[Schema, list[Path]]
"""(schema, three days of a log)."""


def write_days(kind: str, folder: Path, rows: int = 500) -> Days:
    paths = [folder / f"day_{day}" for day in range(3)]
    for day, path in enumerate(paths):
        if kind == "criteo":
            synthesize(str(path), rows, seed=day, scale=0.002)
        elif kind == "avazu":
            write_avazu(path, rows, seed=day)
        else:
            write_csv(path, [row | {"at": f"2024-01-0{1 + day}{row['at'][10:]}"} for row in make_rows(rows, seed=day)])
    known = {"criteo": load_schema("criteo"), "avazu": load_schema("avazu_x4"), "any": schema(categorical=ANY)}[kind]
    crosses = [Categorical(name=name, cross=list(parts)) for name, parts in CROSSES[kind].items()]
    return known.model_copy(update={"categorical": [*known.categorical, *crosses]}), paths


def kind_of(days: Days) -> str:
    return {"label": "criteo", "click": "avazu", "clicked": "any"}[days[0].label.column]


def raw_rows(days: Days, *numbers: int) -> list[dict[str, str]]:
    """Each row's texts by column; where the schema reads one as missing, the empty one."""
    names = ["label", *COLUMNS] if kind_of(days) == "criteo" else None
    rows: list[dict[str, str]] = []
    for number in numbers or range(3):
        with open(days[1][number], newline="") as file:
            rows += csv.DictReader(file, names, delimiter="\t" if names else ",")
    return [{name: "" if text == "NULL" else text for name, text in row.items()} for row in rows]


def label_of(row: dict[str, str]) -> int:
    return int(row.get("label") == "1" or row.get("click") == "1" or row.get("clicked") == "yes")


def uniform(seed: int, row: int) -> Fraction:
    return Fraction(mix((mix(seed) + (row + 1) * 0x9E3779B97F4A7C15) & MASK), 2**64)


def random_splits(rows: int, seed: int = 0) -> list[int]:
    """Of 0.8, 0.1 and 0.1 of the rows."""
    edges = Fraction("0.8"), Fraction("0.9")
    return [sum(uniform(seed, row) >= edge for edge in edges) for row in range(rows)]


def run(days: tuple[Any, list[Any]], output: Path | str, *numbers: int, **options: Any) -> Result:
    small = {"min_count": 3, "workers": 1, "rows_per_shard": 400, "row_group_rows": 128, "block_bytes": 20_000}
    if "vocabulary" not in options:
        small["schema"] = days[0]
    return preprocess(Options([str(days[1][number]) for number in numbers or range(3)], str(output), **{**small, **options}))


def data_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith(".parquet")}


def read(folder: Path, split: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / split).iterdir())])


def tokens_of(folder: Path, name: str) -> dict[Any, int]:
    table = pq.read_table(folder / "vocabulary" / f"{name}.parquet").to_pydict()
    return dict(zip(table["token"], table["id"], strict=True))


def flat(column: pa.ChunkedArray) -> list[int]:
    return [one for row in column.to_pylist() for one in (row if isinstance(row, list) else [row])]
