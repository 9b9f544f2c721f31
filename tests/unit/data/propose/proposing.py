"""Proposes the schema of a log, and holds it against preprocessing: for tests."""

import csv
import random
import shlex
from pathlib import Path
from typing import Any

from dmoe.cli.main import main
from dmoe.config.yaml_files import parse_yaml
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.propose.proposal import propose
from dmoe.data.prepare.propose.sample import Asked
from dmoe.data.prepare.schema import parse_schema

ROWS = 1200
Tree = dict[str, Any]


def tree_of(text: str) -> Tree:
    """The proposed schema: features by their names."""
    schema = parse_schema(parse_yaml(text), "s")
    tree = schema.model_dump(mode="json", exclude_defaults=True)
    for key in ("dense", "categorical"):
        tree[key] = {one.pop("name"): one for one in tree.get(key, [])}
    return tree


def run(folder: Path, text: str, log: str) -> None:
    """Runs the command that the proposal shows, as it is printed."""
    (folder / "schema.yaml").write_text(text)
    words = shlex.split(next(line for line in text.splitlines() if line.startswith("#   dmoe "))[1:])
    at = {word: words.index(word) + 1 for word in ("--schema", "--input", "--output")}
    assert (words[0], words[at["--input"]], words[at["--schema"]]) == ("dmoe", log, "schema.yaml")
    words[at["--schema"]], words[at["--output"]] = str(folder / "schema.yaml"), str(folder / "d")
    assert main([*words[1:], "--workers", "1"]) == 0
    assert "--max-bad-share" not in words
    assert not (folder / "d" / "rejects").exists()
    assert load_kept(str(folder / "d")).schema == parse_schema(parse_yaml(text), "s")


def proposed(folder: Path, path: Path, asked: Asked | None = None, **options: Any) -> Tree:
    text = propose([str(path)], asked or Asked(), **options)
    run(folder, text, str(path))
    return tree_of(text)


def write(path: Path, rows: list[list[Any]], **options: Any) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n", **options).writerows(rows)
    return path


def plain_rows(rows: int = ROWS) -> list[list[Any]]:
    draw = random.Random(0)
    return [[draw.randrange(2), f"s{draw.randrange(9)}", round(draw.expovariate(0.1), 2), draw.randrange(7)] for _ in range(rows)]


NAMES = ["click", "site", "price", "weekday"]
PLAIN = {
    "label": {"column": "click"},
    "dense": {"price": {"transform": "log1p"}},
    "categorical": {"site": {}, "weekday": {"type": "int"}},
}


def json_rows() -> list[Tree]:
    draw = random.Random(0)
    return [
        {
            "id": n,
            "clicked": draw.random() < 0.3,
            "user": draw.randrange(40),
            "tags": [draw.choice("abcd") for _ in range(draw.randrange(4))],
            "price": draw.choice([1.5, 2, None, 1e5]),
            "geo": {"lat": 1},
            "deep": [["x"]],
            "ts": 1700000000123 + n * 60_000,
            "big": 12345678901234567890 + draw.randrange(5),
        }
        | ({"rare": "r1"} if n % 3 else {})
        for n in range(ROWS)
    ]
