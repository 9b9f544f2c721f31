"""A log of clicks with two features, its data set, and rows of another log with that data set's ids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dmoe.data.prepare import pipeline
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import Result
from dmoe.data.prepare.schema import parse_schema
from dmoe.errors import UserError
from tests.unit.data.log.logs import read_split

ROWS = [(n % 3 == 0, f"s{n % 5}", f"d{n % 2}") for n in range(60)]
HEADER = "click,site,device"


def text(rows: list[tuple[Any, ...]] = ROWS, header: str = HEADER, label: Callable[[bool], str] = lambda click: str(int(click))) -> str:
    return "\n".join([header, *(f"{label(click)},{site},{device}" for click, site, device in rows)]) + "\n"


def make(folder: Path, content: str | bytes, name: str = "log.csv", **options: Any) -> Result:
    tree = {"label": "click", "categorical": ["site", "device"]} | options.pop("tree", {})
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return preprocess(folder, name, **{"schema": parse_schema(tree, "schema.yaml"), "split": "1,0,0", "output": "d"} | options)


def preprocess(folder: Path, name: str, output: str, **options: Any) -> Result:
    settings = {"where": "schema.yaml", "min_count": 1, "workers": 1, "max_bad_share": 0.1} | options
    return pipeline.preprocess(Options([str(folder / name)], str(folder / output), **settings))


def score(folder: Path, content: str | bytes, name: str = "score.csv", **options: Any) -> Result:
    """The log's rows with the ids of the data set that `make` made."""
    from dmoe.data.prepare.kept import load_kept

    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    kept = load_kept(str(folder / "d")).schema
    return preprocess(
        folder, name, "scores", **{"schema": kept, "vocabulary": str(folder / "d"), "scoring": True, "overwrite": True} | options
    )


def clicks(folder: Path) -> list[int]:
    return [row["label"] for row in read_split(folder / "d", "train")]


def sites(folder: Path, output: str = "d", split: str = "train", name: str = "site") -> list[str | None]:
    token_of: dict[int, str | None] = {1: "rare", 0: None}
    for row in pq.read_table(folder / "d" / "vocabulary" / f"{name}.parquet").to_pylist():
        token_of[row["id"]] = row["token"].decode()
    return [token_of[row[name]] for row in read_split(folder / output, split)]


def refusal(folder: Path, log: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        make(folder, log, max_bad_share=0, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)
