"""The schema that is proposed for a log says what the log is, and preprocessing reads the log by it without a malformed row."""

import gzip
import json
import random
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.config.yaml_files import parse_yaml
from dmoe.data.prepare.propose.form import has_header
from dmoe.data.prepare.propose.sample import Asked
from dmoe.data.prepare.schema import load_schema, parse_schema
from dmoe.testing.synthesize import synthesize
from tests.log_files import packed
from tests.unit.data.log.logs import make_rows, write_avazu, write_csv
from tests.unit.data.propose.proposing import NAMES, PLAIN, ROWS, Tree, json_rows, plain_rows, proposed, write


def test_criteo_s_columns_are_named_and_typed_as_its_schema_has_them(tmp_path: Path):
    synthesize(str(tmp_path / "day.tsv"), ROWS, seed=1, scale=0.01)
    tree, known = proposed(tmp_path, tmp_path / "day.tsv"), load_schema("criteo")
    assert tree["columns"] == known.columns
    assert tree["label"] == {"column": "label"}
    assert tree["dense"] == {f"I{n}": {"type": "int", "transform": "log1p"} for n in range(1, 14)}
    assert tree["categorical"] == {f"C{n}": {"type": "hex"} for n in range(1, 27)}
    assert parse_schema(parse_yaml((tmp_path / "schema.yaml").read_text()), "s").typed_columns
    assert "--schema criteo" in (tmp_path / "schema.yaml").read_text()


def test_criteo_x1_s_scaled_numbers_and_integer_tokens_are_not_taken_for_criteo_s(tmp_path: Path):
    draw = random.Random(0)
    names = load_schema("criteo_x1").columns or []
    rows = [[draw.randrange(2), *(draw.random() for _ in range(13)), *(draw.randrange(1000) for _ in range(26))] for _ in range(ROWS)]
    tree = proposed(tmp_path, write(tmp_path / "1_train.csv", [names, *rows]))
    assert tree["dense"] == {f"I{n}": {} for n in range(1, 14)}
    assert tree["categorical"] == {f"C{n}": {"type": "int"} for n in range(1, 27)}
    assert "--schema criteo_x1;" in (tmp_path / "schema.yaml").read_text()


def test_avazu_s_id_is_left_out_and_its_hour_is_the_time(tmp_path: Path):
    write_avazu(tmp_path / "train.csv", ROWS)
    tree, known = proposed(tmp_path, tmp_path / "train.csv"), load_schema("avazu_x4")
    assert (tree["label"], tree["time"]) == ({"column": "click"}, {"column": "hour", "format": "%y%m%d%H"})
    assert list(tree["categorical"]) == [one.name for one in known.categorical if one.name != "is_weekend"]
    assert tree["categorical"]["weekday"] == {"part": "weekday"}
    assert not tree["dense"]
    left_out = (tmp_path / "schema.yaml").read_text().partition("# Left out:")[2]
    assert left_out.splitlines()[1].startswith("#   id: ")


def test_avazu_s_first_hour_alone_is_known_by_its_name(tmp_path: Path):
    write_avazu(tmp_path / "all.csv", ROWS)
    lines = (tmp_path / "all.csv").read_text().splitlines()
    hour = [",".join([*line.split(",")[:2], "14102100", *line.split(",")[3:]]) for line in lines[1:]]
    (tmp_path / "hour.csv").write_text("\n".join([lines[0], *hour]) + "\n")
    assert proposed(tmp_path, tmp_path / "hour.csv")["time"] == {"column": "hour", "format": "%y%m%d%H"}


def test_a_log_with_bags_weights_groups_and_times(tmp_path: Path):
    write_csv(tmp_path / "log.csv", make_rows(ROWS))
    assert proposed(tmp_path, tmp_path / "log.csv") == {
        "label": {"column": "clicked", "positive": "yes"},
        "time": {"column": "at", "format": "%Y-%m-%d %H:%M:%S"},
        "weight": "w",
        "group": "user",
        "missing": ["NULL"],
        "dense": {"price": {"transform": "log1p"}, "age": {"transform": "standardise"}, "raw": {"transform": "log1p"}},
        "categorical": {
            "user": {},
            "site": {},
            "tags": {"separator": "|", "pooling": "mean"},
            "hour": {"part": "hour"},
            "weekday": {"part": "weekday"},
        },
    }
    assert "#   unused: the same in every row" in (tmp_path / "schema.yaml").read_text()


@pytest.mark.parametrize(
    ("delimiter", "form"),
    [
        (",", {}),
        ("\t", {"format": "tsv", "quote": None}),
        (";", {"delimiter": ";"}),
        ("|", {"delimiter": "|", "quote": None}),
        ("\x01", {"delimiter": "\x01", "quote": None}),
        (" ", {"delimiter": " ", "quote": None}),
    ],
)
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str, form: Tree):
    write(tmp_path / "log", [NAMES, *plain_rows()], delimiter=delimiter)
    assert proposed(tmp_path, tmp_path / "log") == form | PLAIN
    bare = tmp_path / "bare"
    bare.mkdir()
    write(bare / "log", plain_rows(), delimiter=delimiter)
    named = {"header": False, "columns": ["column_1", "column_2", "column_3", "column_4"]}
    found = proposed(bare, bare / "log")
    assert {key: found[key] for key in found if key in named} == named
    assert found["label"] == {"column": "column_1"}
    assert list(found["dense"]) == ["column_3"]
    assert list(found["categorical"]) == ["column_2", "column_4"]


@pytest.mark.parametrize(
    ("lines", "header"),
    [
        (["label,1,user", "0,5,a", "1,6,b", "0,7,a"], True),
        (["NULL,abc,5", "3,def,6", "4,abd,7"], False),
        (["1,,abc", "0,3,abd", "1,4,abc"], False),
        (["1,7,first", "0,3,12", "1,4,13"], False),
        ([",click,site", "0,1,a", "1,0,b"], True),
    ],
)
def test_a_number_in_the_first_line_may_be_a_name(lines: list[str], header: bool):
    assert has_header([line.split(",") for line in lines])[0] is header


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_compressed_with_a_mark_and_ends_of_windows(tmp_path: Path, how: str):
    write(tmp_path / "log", [NAMES, *plain_rows()])
    data = b"\xef\xbb\xbf" + (tmp_path / "log").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "log").write_bytes(packed(data, how))
    assert proposed(tmp_path, tmp_path / "log") == PLAIN


def test_fields_in_quotes_that_hold_delimiters_and_line_ends(tmp_path: Path):
    draw = random.Random(0)
    titles = ["a, b", 'say "hi"', "two\nlines", "x\r\ny"]
    rows = [
        [draw.choice(titles), draw.randrange(2), f"2024-03-{draw.randrange(1, 29):02d}T{draw.randrange(24):02d}:00:00Z"]
        for _ in range(ROWS)
    ]
    tree = proposed(tmp_path, write(tmp_path / "log.csv", [["title", "click", "when"], *rows]))
    assert tree["time"] == {"column": "when", "format": "%Y-%m-%dT%H:%M:%S%z"}
    assert list(tree["categorical"]) == ["title", "hour", "weekday"]


def test_movielens(tmp_path: Path):
    draw = random.Random(0)
    rows = [
        [min(int(draw.expovariate(0.02)) + 1, 200), draw.randrange(1, 300), draw.randrange(1, 6), 881250949 + draw.randrange(10**7)]
        for _ in range(ROWS)
    ]
    expected = {
        "label": {"column": "rating", "positive": "5"},
        "time": {"column": "ts", "format": "unix"},
        "group": "user",
        "dense": {},
        "categorical": {"user": {"type": "int"}, "item": {"type": "int"}, "hour": {"part": "hour"}, "weekday": {"part": "weekday"}},
    }
    for delimiter in "\t ":
        folder = tmp_path / f"by {ord(delimiter)}"
        folder.mkdir()
        tree = proposed(folder, write(folder / "u.data", rows, delimiter=delimiter), Asked(columns=("user", "item", "rating", "ts")))
        assert {key: tree[key] for key in expected} == expected
    tree = proposed(tmp_path, write(tmp_path / "u.data", rows, delimiter="\t"), label="column_3", positive="4")
    assert (tree["label"], tree["time"]["column"]) == ({"column": "column_3", "positive": "4"}, "column_4")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_json_lines(tmp_path: Path, pack: Callable[[bytes], bytes]):
    (tmp_path / "log.jsonl").write_bytes(pack("".join(json.dumps(row) + "\n" for row in json_rows()).encode()))
    assert proposed(tmp_path, tmp_path / "log.jsonl") == {
        "format": "jsonl",
        "label": {"column": "clicked", "positive": "true"},
        "time": {"column": "ts", "format": "unix_ms"},
        "group": "user",
        "dense": {"price": {"transform": "log1p"}},
        "categorical": {
            "user": {"type": "int"},
            "tags": {"pooling": "mean"},
            "big": {},
            "hour": {"part": "hour"},
            "weekday": {"part": "weekday"},
        },
    }
    left_out = (tmp_path / "schema.yaml").read_text().partition("# Left out:")[2]
    assert [line.split(":")[0].split()[-1] for line in left_out.strip().splitlines()] == ["id", "geo", "deep", "rare"]


def test_parquet_of_every_type(tmp_path: Path):
    draw = random.Random(0)
    columns = {
        "label": pa.array([draw.randrange(2) for _ in range(ROWS)], pa.int8()),
        "when": pa.array([datetime(2024, 1, 1) + timedelta(minutes=17 * n) for n in range(ROWS)], pa.timestamp("us")),
        "device": pa.array([draw.choice(["ios", "android", None]) for _ in range(ROWS)]).dictionary_encode(),
        "site": pa.array([draw.choice("ab") for _ in range(ROWS)], pa.large_string()),
        "price": pa.array([Decimal(draw.randrange(10000)).scaleb(-2) for _ in range(ROWS)], pa.decimal128(10, 2)),
        "tags": pa.array([[draw.choice("abc") for _ in range(draw.randrange(4))] for _ in range(ROWS)]),
        "deep": pa.array([{"a": 1}] * ROWS),
        "lists": pa.array([[["x"]]] * ROWS),
        "day": pa.array([date(2024, 1, 1 + n % 20) for n in range(ROWS)]),
        "bytes": pa.array([b"ab", b"\xff"] * (ROWS // 2)),
        "flag": pa.array([draw.random() < 0.5 for _ in range(ROWS)]),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", row_group_size=100)
    assert proposed(tmp_path, tmp_path / "log.parquet") == {
        "format": "parquet",
        "label": {"column": "label"},
        "time": {"column": "when", "format": "unix"},
        "dense": {"price": {"transform": "standardise"}},
        "categorical": {
            "device": {},
            "site": {},
            "tags": {"pooling": "mean"},
            "flag": {"type": "int"},
            "hour": {"part": "hour"},
            "weekday": {"part": "weekday"},
        },
    }
    left_out = (tmp_path / "schema.yaml").read_text().partition("# Left out:")[2]
    assert [line.split(":")[0].split()[-1] for line in left_out.strip().splitlines()] == ["deep", "lists", "day", "bytes"]


def test_columns_of_odd_names(tmp_path: Path):
    draw = random.Random(0)
    names = ["a b", "user.id", "keys", "état", "", "label", "@w", "x\ty", "#no: {yes", "clicked", "null"]
    rows = [[f"{draw.choice('pqrs')}{n}" for n in range(9)] + [draw.randrange(2), draw.choice("gh")] for _ in range(ROWS)]
    tree = proposed(tmp_path, write(tmp_path / "log.csv", [names, *rows]), label="clicked")
    assert tree["categorical"] == {
        "a b": {},
        "user.id": {},
        "keys": {},
        "état": {},
        "feature_label": {"column": "label"},
        "feature_w": {"column": "@w"},
        "x\\ty": {"column": "x\ty"},
        "#no: {yes": {},
        "null": {},
    }
    assert tree["group"] == "user.id"
