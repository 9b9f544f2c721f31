"""Floats, booleans and NaN in rows in memory are the tokens that the same values have in a log."""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import parse_schema
from dmoe.serve.encoding.row_encoder import RowEncoder

NAMES = ["flag", "version", "mixed", "cross"]
FLAGS, VERSIONS, MIXED = [True, False, None], [1.0, 1.5, 2.0, -3.25e20], [7.0, 7, 2.5]
ROWS: list[dict[str, Any]] = [
    {"click": row % 2, "flag": FLAGS[row % 3], "version": VERSIONS[row % 4], "mixed": MIXED[row // 2 % 3], "price": row / 8}
    for row in range(96)
]


def write(folder: Path, form: str) -> Path:
    path = folder / f"log.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([row | {"mixed": float(row["mixed"])} for row in ROWS]), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ROWS[0])
            writer.writeheader()
            writer.writerows(ROWS)
    return path


def made(folder: Path, form: str) -> tuple[RowEncoder, dict[str, list[int]]]:
    """An encoder, and the ids that scoring the log gives."""
    log = str(write(folder, form))
    cross = {"name": "cross", "cross": ["flag", "version"]}
    tree = {"format": form, "label": "click", "dense": ["price"], "categorical": [*NAMES[:3], cross]}
    data, later = str(folder / "data"), str(folder / "later")
    preprocess(Options([log], data, schema=parse_schema(tree, "schema"), min_count=1, split="1,0,0", workers=1))
    preprocess(Options([log], later, vocabulary=data, scoring=True, workers=1))
    (shard,) = load_manifest(later).splits["score"].shards
    table = pq.read_table(f"{later}/{shard.path}")
    return RowEncoder(load_kept(data), ["price"], NAMES), {name: table[name].to_pylist() for name in NAMES}


def ids(encoder: RowEncoder, rows: Any) -> dict[str, list[int]]:
    return dict(zip(NAMES, encoder.encode(rows).ids_BF.T.tolist(), strict=True))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_row_has_the_ids_of_its_line(tmp_path, form):
    encoder, expected = made(tmp_path, form)
    rows = [row | {"mixed": float(row["mixed"])} for row in ROWS] if form == "parquet" else ROWS
    assert min(min(expected[name]) for name in ("version", "mixed")) > 1
    assert ids(encoder, rows) == expected
    alone = [ids(encoder, [row]) for row in rows]
    assert {name: [one[name][0] for one in alone] for name in NAMES} == expected
    of_numpy = [row | {"version": np.float64(row["version"]), "price": np.float32(row["price"])} for row in rows]
    of_numpy[0]["mixed"] = np.int64(7) if type(rows[0]["mixed"]) is int else np.float64(7)
    assert ids(encoder, of_numpy) == expected
    if form != "jsonl":
        # Arrow has no column of 7 and 7.0.
        as_float = [row | {"mixed": float(row["mixed"])} for row in rows]
        assert ids(encoder, pa.Table.from_pylist(as_float)) == ids(encoder, as_float)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("others", [[], ["a"], ["a", 7], [1.5]])
def test_nan_is_a_missing_value_beside_any_other(tmp_path, form, others):
    encoder, _ = made(tmp_path, form)
    rows = [{"mixed": float("nan"), "price": float("nan")}, *({"mixed": one, "price": "3"} for one in others)]
    assert ids(encoder, rows)["mixed"][0] == 0
    assert encoder.encode(rows).dense_BI[0, 0] == 0


def encoded(
    folder: Path, lines: list[str], tree: dict[str, Any], names: list[str], rows: Any, **options: Any
) -> tuple[list[Any], list[Any]]:
    """The ids of the features in the log's training data, and of rows in memory."""
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    data = folder / "data"
    schema = parse_schema({"label": "click", **tree}, "schema")
    preprocess(Options([str(folder / "log.csv")], str(data), schema=schema, min_count=1, split="1,0,0", workers=1))
    table = pq.read_table(data / "train")
    found = RowEncoder(load_kept(str(data)), [], names).encode(rows)
    return [table[name].to_pylist() for name in names], found.ids_BF.T.tolist()


@pytest.mark.parametrize("as_table", [False, True])
@pytest.mark.parametrize(
    ("texts", "values", "categorical", "names"),
    [
        (["7", "8", "9"], [7.0, 8.0, 9.0], ["v", {"name": "x", "cross": ["site", "v"]}], ["v", "x"]),
        (["True", "False", "True"], [True, False, True], [{"name": "x", "cross": ["site", "v"]}], ["x"]),
        (["1.0", "2.0", "2.5"], [1.0, 2.0, 2.5], ["v", {"name": "x", "cross": ["v", "site"]}], ["x"]),
        (["7", "u7", "8"], [7.0, "u7", 8.0], ["v", {"name": "x", "cross": ["site", "v"]}], ["v", "x"]),
        (["0.00001", "1e-7", "3"], [1e-5, 1e-7, 3.0], ["v"], ["v"]),
    ],
)
def test_crosses_have_the_texts_of_their_log(tmp_path, as_table, texts, values, categorical, names):
    lines = [f"{row % 2},s{row % 2},{texts[row % 3]}" for row in range(60)]
    rows = [{"site": f"s{row % 2}", "v": values[row % 3]} for row in range(60)]
    tree = {"categorical": ["site", *categorical]}
    # An Arrow column has one type.
    given = pa.Table.from_pylist(rows) if as_table and len(set(map(type, values))) == 1 else rows
    expected, found = encoded(tmp_path, ["click,site,v", *lines], tree, names, given)
    assert found == expected
    assert min(map(min, found)) > 1


@pytest.mark.parametrize("ids", ["counted", "hash"])
def test_lists_and_short_floats_of_parquet(tmp_path, ids):
    flags, numbers = [[True], [False, True], []], [0.7, 1.0, None]
    table = pa.table(
        {
            "click": pa.array([row % 2 for row in range(60)]),
            "flags": pa.array([flags[row % 3] for row in range(60)], pa.list_(pa.bool_())),
            "v": pa.array([numbers[row % 3] for row in range(60)], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    tree = {"format": "parquet", "label": "click", "categorical": [{"name": "flags", "pooling": "sum"}, "v"]}
    options = {"ids": "hash", "hash_size": "997"} if ids == "hash" else {"min_count": 1}
    data, schema = str(tmp_path / "data"), parse_schema(tree, "schema")
    preprocess(Options([str(tmp_path / "log.parquet")], data, schema=schema, split="1,0,0", workers=1, **options))
    expected = pq.read_table(f"{data}/train")
    rows = [{"flags": row["flags"], "v": None if row["v"] is None else np.float32(row["v"])} for row in table.to_pylist()]
    for given in (table.select(["flags", "v"]), rows):
        found = RowEncoder(load_kept(data), [], ["flags", "v"]).encode(given)
        bags = found.bags["flags"]
        assert [bags.values[low:high].tolist() for low, high in itertools.pairwise(bags.offsets)] == expected["flags"].to_pylist()
        assert found.ids_BF[:, 1].tolist() == expected["v"].to_pylist()
