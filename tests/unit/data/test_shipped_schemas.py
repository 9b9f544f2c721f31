"""The shipped schemas make of their logs what the protocols say."""

import csv
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import load_schema, shipped
from dmoe.data.prepare.summary import summarize
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize
from tests.unit.data.every_schema import read, tokens_of

INTEGERS, TOKENS = [f"I{n}" for n in range(1, 14)], [f"C{n}" for n in range(1, 27)]


def make(output: Path, schema: str, *inputs: Path, **options: Any) -> Any:
    return preprocess(Options([str(one) for one in inputs], str(output), schema=schema, workers=1, **options))


def test_criteo_and_avazu_are_there():
    assert shipped() == ["avazu_x1", "avazu_x4", "criteo", "criteo_x1", "criteo_x4"]
    fields = {name: (len(load_schema(name).dense), len(load_schema(name).categorical)) for name in shipped()}
    assert fields == {"avazu_x1": (0, 22), "avazu_x4": (0, 24), "criteo": (13, 39), "criteo_x1": (13, 26), "criteo_x4": (0, 39)}


@pytest.mark.parametrize("form", ["tsv", "csv"])
def test_criteo_x4_has_the_tokens_and_buckets_of_criteo(tmp_path: Path, form: str):
    """Of Kaggle's file, and of BARS's, whose first line begins with `Label`."""
    log = tmp_path / "log"
    synthesize(str(log), 800, seed=3, scale=0.005)
    make(tmp_path / "criteo", "criteo", log, min_count=2)
    if form == "csv":
        rows = [line.split("\t") for line in log.read_text().splitlines()]
        with open(log, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["Label", *INTEGERS, *TOKENS], *rows])
    make(tmp_path / "x4", "criteo_x4", log, min_count=2)
    manifest = load_manifest(str(tmp_path / "x4"))
    assert (manifest.dataset, manifest.dense) == ("criteo_x4", ())
    names = [one.name for one in manifest.categorical]
    assert sorted(names) == sorted([*TOKENS, *(f"{name}_bucket" for name in INTEGERS)])
    for split in ("train", "validation", "test"):
        assert read(tmp_path / "x4", split).select(["label", *names]).equals(read(tmp_path / "criteo", split).select(["label", *names]))


def test_criteo_x1_s_three_files_are_its_splits(tmp_path: Path):
    draw = random.Random(0)
    files: dict[str, list[list[str]]] = {}
    for name, rows in (("1_train", 300), ("2_valid", 80), ("3_test", 40)):
        numbers = [[f"{draw.random():.6g}" for _ in INTEGERS] for _ in range(rows)]
        files[name] = [[str(draw.randrange(2)), *one, *(str(draw.randrange(2 * n, 3 * n + 9)) for n in range(26))] for one in numbers]
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["label", *INTEGERS, *TOKENS], *files[name]])
    held_out = {"split_by": "day", "validation_days": 1, "test_days": 1, "min_count": 1}
    done = make(tmp_path / "d", "criteo_x1", *(tmp_path / f"{name}.csv" for name in files), **held_out)
    for split, rows in zip(("train", "validation", "test"), files.values(), strict=True):
        table = read(tmp_path / "d", split)
        assert table["label"].to_pylist() == [int(row[0]) for row in rows]
        for at, name in enumerate(INTEGERS, start=1):
            assert table[name].to_pylist() == [float(np.float32(row[at])) for row in rows]
    for at, name in enumerate(TOKENS, start=14):
        counts = Counter(int(row[at]) for row in files["1_train"])
        ids = {token: 2 + place for place, token in enumerate(sorted(counts, key=lambda one: (-counts[one], one)))}
        assert tokens_of(tmp_path / "d", name) == ids
        assert read(tmp_path / "d", "test")[name].to_pylist() == [ids.get(int(row[at]), 1) for row in files["3_test"]]
    assert "--config criteo_x1 " in summarize(done, "d")
    assert pq.read_schema(next((tmp_path / "d" / "train").iterdir())).field("I1").type == "float"


def test_a_misspelt_name_is_told_the_nearest():
    with pytest.raises(UserError, match=r"--schema criteo_x11: .*'criteo_x1'"):
        load_schema("criteo_x11")
