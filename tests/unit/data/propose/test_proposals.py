"""The schema that is proposed for a log says what the log is, and preprocessing reads the log by it without a malformed row."""

import csv
import gzip
import io
import json
import random
import shlex
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.cli.main import main
from dmoe.config.yaml_files import parse_yaml
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.propose import places
from dmoe.data.prepare.propose.proposal import propose
from dmoe.data.prepare.propose.sample import Asked
from dmoe.data.prepare.schema import load_schema, parse_schema, shipped
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize
from tests.log_files import packed, pipe
from tests.s3_server import s3_server
from tests.unit.data.log.logs import make_rows, write_avazu, write_csv

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


def plain_rows(rows: int = ROWS) -> list[list[Any]]:
    draw = random.Random(0)
    return [[draw.randrange(2), f"s{draw.randrange(9)}", round(draw.expovariate(0.1), 2), draw.randrange(7)] for _ in range(rows)]


NAMES = ["click", "site", "price", "weekday"]
PLAIN = {
    "label": {"column": "click"},
    "dense": {"price": {"transform": "log1p"}},
    "categorical": {"site": {}, "weekday": {"type": "int"}},
}


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


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0", "1"], {"column": "click"}),
        (["-1", "1"], {"column": "click", "positive": "1"}),
        (["False", "True"], {"column": "click", "positive": "True"}),
        (["n", "y"], {"column": "click", "positive": "y"}),
        (["0.0", "1.0"], {"column": "click"}),
    ],
)
def test_the_value_of_the_label_that_is_1(tmp_path: Path, values: list[str], expected: Tree):
    draw = random.Random(0)
    rows = [[draw.choice(values), draw.choice("abc"), draw.choice(["-1", "-1", "20", "30", "40"])] for _ in range(ROWS)]
    tree = proposed(tmp_path, write(tmp_path / "log.csv", [["click", "site", "age"], *rows]))
    assert tree["label"] == expected
    # Where -1 is a label, it cannot mean "no value" too.
    assert tree.get("missing", []) == ([] if "-1" in values else ["-1"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2024-03-01", "2024-03-02", "2024-12-31"], "%Y-%m-%d"),
        (["20240301", "20240302", "20241231"], "%Y%m%d"),
        (["1709287200", "1709287261", "1709297261"], "unix"),
        (["1709287200.5", "1709287261.25", "1709297261.0"], "unix"),
        (["1709287200123", "1709287261000", "1709297261000"], "unix_ms"),
        (["2024-03-01T10:00:00.123Z", "2024-03-02T11:00:00.1Z"], "%Y-%m-%dT%H:%M:%S.%f%z"),
        (["2024-03-01 10:00:00+09:00", "2024-03-02 11:00:00+09:00"], "%Y-%m-%d %H:%M:%S%z"),
        (["01.02.2024 10:00", "28.02.2024 11:00"], "%d.%m.%Y %H:%M"),
        (["13/02/2024", "01/02/2024"], "%d/%m/%Y"),
        (["02/13/2024 10:00:00 PM", "01/02/2024 01:00:00 AM"], "%m/%d/%Y %I:%M:%S %p"),
        (["10/Oct/2023:13:55:36 -0700", "11/Oct/2023:13:55:36 -0700"], "%d/%b/%Y:%H:%M:%S %z"),
        (["Fri Mar 01 10:00:00 UTC 2024", "Sat Mar 02 10:00:00 UTC 2024"], "%a %b %d %H:%M:%S UTC %Y"),
    ],
)
def test_the_format_of_times(tmp_path: Path, values: list[str], expected: str):
    draw = random.Random(0)
    rows = [[draw.randrange(2), draw.choice("abc"), draw.choice(values)] for _ in range(ROWS)]
    tree = proposed(tmp_path, write(tmp_path / "log.csv", [["click", "site", "date"], *rows]))
    assert tree["time"] == {"column": "date", "format": expected}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["01/02/2024", "03/04/2024"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["Fri Mar 01 10:00:00 UTC 2024", "Fri Mar 01 02:01:01 PST 2024"], ["offsets"]),
        (["1709287200123456", "1709287261000000"], ["microseconds"]),
    ],
)
def test_times_that_cannot_be_read_are_left_out_with_the_reason(tmp_path: Path, values: list[str], named: list[str]):
    draw = random.Random(0)
    rows = [[draw.randrange(2), draw.choice("abc"), draw.choice(values)] for _ in range(ROWS)]
    tree = proposed(tmp_path, write(tmp_path / "log.csv", [["click", "site", "date"], *rows]))
    assert "time" not in tree
    (reason,) = [line for line in (tmp_path / "schema.yaml").read_text().splitlines() if line.startswith("#   date: ")]
    assert all(word in reason for word in named)


def test_what_says_nothing_is_left_out_with_the_reason(tmp_path: Path):
    rows = [[n % 2, f"s{n % 5}", "", "same", f"row {n}", 7000 + n, "NULL"] for n in range(ROWS)]
    names = ["click", "site", "empty", "constant", "unique", "row_id", "null"]
    tree = proposed(tmp_path, write(tmp_path / "log.csv", [names, *rows]))
    assert (list(tree["categorical"]), tree["dense"]) == (["site"], {})
    left_out = (tmp_path / "schema.yaml").read_text().partition("# Left out:")[2].strip().splitlines()
    said = {line[4:].partition(": ")[0].strip("'"): line.partition(": ")[2] for line in left_out}
    assert list(said) == ["empty", "constant", "unique", "row_id", "null"]
    assert said["constant"] == "the same in every row: 'same'"
    assert all("every row" in said[name] for name in ("unique", "row_id"))


def test_numbers_with_a_decimal_comma_are_tokens_and_the_reason_says_so(tmp_path: Path):
    rng = random.Random(2)
    rows = [[rng.randrange(2), f"{rng.randrange(2000)},{rng.randrange(100):02}", f"1,{rng.randrange(30):03}"] for _ in range(ROWS)]
    path = write(tmp_path / "log.csv", [["click", "price", "views"], *rows], delimiter=";")
    text = propose([str(path)], Asked())
    assert [line.split()[1].strip("{,") for line in text.splitlines() if "decimal comma" in line] == ["price"]
    run(tmp_path, text, str(path))


def test_what_tells_the_label_is_no_feature(tmp_path: Path):
    """The label once more, in other words, and a time that clicks alone have."""
    draw = random.Random(0)
    rows = []
    for _ in range(ROWS):
        click = draw.randrange(2)
        bought = f"2024-03-0{draw.randrange(1, 9)}" if click else ""
        rows.append([click, "no" if click else draw.choice(["yes", "maybe"]), bought, draw.choice("abc"), draw.choice(["x", f"y{click}"])])
    tree = proposed(tmp_path, write(tmp_path / "log.csv", [["clk", "nonclk", "buy_date", "site", "strong"], *rows]))
    assert tree["label"] == {"column": "clk"}
    assert (list(tree["categorical"]), tree.get("time")) == (["site", "strong"], None)
    left_out = (tmp_path / "schema.yaml").read_text().partition("# Left out:")[2].strip().splitlines()
    assert [line.split(":")[0] for line in left_out] == ["#   nonclk", "#   buy_date"]
    assert all("after the click" in line for line in left_out)


def test_a_log_in_order_is_sampled_from_its_start_to_its_end(tmp_path: Path):
    """The first rows are of one class and one site: what they are alone would be left out, and the price a token."""
    rows = 400_000
    with open(tmp_path / "log.csv", "w") as file:
        file.write("click,site,price\n")
        file.writelines(f"{int(n > rows // 3)},s{n * 4 // rows},{n // 1000 + (n > rows * 0.9) / 4}\n" for n in range(rows))
    text = propose([str(tmp_path / "log.csv")], Asked(rows=1000))
    tree = tree_of(text)
    assert (list(tree["categorical"]), list(tree["dense"])) == (["site"], ["price"])
    assert " 20 places " in text.splitlines()[0]
    assert "2 values" in next(line for line in text.splitlines() if line.startswith("label"))


def test_several_files_of_one_form_are_one_log(tmp_path: Path):
    for day in range(3):
        write(tmp_path / f"day_{day}.csv", [NAMES, *[[*row[:1], f"d{day}", *row[2:]] for row in plain_rows(200)]])
    text = propose([str(tmp_path / "day_*.csv")], Asked())
    assert list(tree_of(text)["categorical"]) == ["site", "weekday"]
    assert "- site  # 3 values" in text


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "log.csv", [NAMES, *plain_rows()])
    data = (tmp_path / "log.csv").read_bytes()
    pipe(monkeypatch, data)
    text = propose(["-"], Asked())
    assert tree_of(text) == PLAIN
    pipe(monkeypatch, data)
    run(tmp_path, text, "-")


def test_malformed_rows_are_told_and_the_command_lets_them_pass(tmp_path: Path):
    rows = plain_rows()
    rows[100] = ["1", "s1"]
    rows[200] = ["1", "s1", "0.5", "1", "too many"]
    text = propose([str(write(tmp_path / "log.csv", [NAMES, *rows]))], Asked())
    assert f"2 of {ROWS:,} sampled rows are malformed" in text
    assert "line 102" in text
    (tmp_path / "schema.yaml").write_text(text)
    words = shlex.split(next(line for line in text.splitlines() if line.startswith("#   dmoe "))[1:])
    words[words.index("schema.yaml")], words[words.index("--output") + 1] = str(tmp_path / "schema.yaml"), str(tmp_path / "d")
    assert main(words[1:]) == 0
    assert len(list((tmp_path / "d" / "rejects").iterdir())) == 1


def test_shipped_schemas_are_listed_and_shown(capsys: pytest.CaptureFixture[str]):
    assert main(["schema", "--list"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == shipped()
    for name in shipped():
        assert main(["schema", "--show", name]) == 0
        assert parse_schema(parse_yaml(capsys.readouterr().out), "s") == load_schema(name)


def test_the_command_prints_or_writes_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = str(write(tmp_path / "log.csv", [NAMES, *plain_rows()]))
    assert main(["schema", log]) == 0
    printed = capsys.readouterr().out
    assert main(["schema", log, "--output", str(tmp_path / "own.yaml")]) == 0
    assert tree_of((tmp_path / "own.yaml").read_text()) == tree_of(printed) == PLAIN
    assert f"--schema {tmp_path}/own.yaml" in (tmp_path / "own.yaml").read_text()


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that ends with exit code 2 and prints nothing."""
    assert main(["schema", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("dmoe schema: ")
    assert err.count("\n") == 1
    return err.removeprefix("dmoe schema: ").strip()


NOISE = random.Random(0).randbytes(5000)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ["log: empty"]),
        (b"\n\n\n", ["log: empty"]),
        (b"click,site\n", ["log: one line"]),
        (b"1,a,b\n", ["log: one line"]),
        (NOISE, ["log: is no text"]),
        ("click,stadt\n1,Köln\n0,Zürich\n".encode("latin-1"), ["log:2: byte 0xf6", "UTF-8"]),
        ("click,site\n1,a\n".encode("utf-16"), ["log: is UTF-16"]),
        (b"click,site," + b"x" * (2 << 20) + b"\n1,a,b\n", ["log:1: a line longer than 1 MiB"]),
        (b"click,a,a\n1,x,y\n0,x,y\n", ["two columns 'a'"]),
        (b"site\ns1\n\ns2\n", ["--delimiter"]),
        (b"1::2::3\n4::5::6\n", ["'::'"]),
        (b" 1   2\n 3  44\n", ["several spaces"]),
        (b'[\n{"click": 1}\n]\n', ["JSON array"]),
        (b'{\n"click": 1\n}\n', ["first line is not a whole JSON object"]),
        (b"install,purchase,s\n1,0,a\n0,1,b\n", ["--label", "'install'", "'purchase'"]),
        (b"click,s\ngood,a\nbad,b\n", ["--positive", "'click'", "'good'", "'bad'"]),
        (b"a,b\n1,x\n2,y\n3,z\n", ["--label", "'a'", "'b'"]),
        (b"click,site\n1,a\n0,a\n1,a\n", ["'site'", "same in every row"]),
    ],
)
def test_a_log_that_does_not_tell_is_one_line(tmp_path: Path, data: bytes, said: list[str], capsys: pytest.CaptureFixture[str]):
    (tmp_path / "log").write_bytes(data)
    message = error_of([str(tmp_path / "log")], capsys)
    assert all(word in message for word in said), message


def test_mistakes_of_the_command_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = str(write(tmp_path / "log.csv", [NAMES, *plain_rows(50)]))
    for arguments, said in (
        ([], "name a log"),
        (["--show", "crite"], "criteo"),
        ([log, "--sample", "0"], "--sample"),
        ([log, "--delimiter", "::"], "--delimiter"),
        ([log, "--label", "clck"], "'click'"),
        ([log, "--columns", "a,b", "--header", "no"], "--columns names 2"),
        ([log, "-"], "'-'"),
        ([str(tmp_path / "absent.csv")], "no such file"),
    ):
        assert said in error_of(arguments, capsys)


def test_stdin_that_never_ends_is_read_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from dmoe.data.prepare.source import raw_bytes as sources

    class Endless(io.RawIOBase):
        read_so_far = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.read_so_far += size
            return b"1,a\n" * (size // 4)

    source = Endless()
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": source})())
    path = sources.spool_start(str(tmp_path), most=3 << 20)
    assert Path(path).stat().st_size <= 5 << 20
    assert source.read_so_far <= 6 << 20


def test_a_log_on_s3_is_read_in_places_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(places, "FEWEST_BYTES", 1 << 14)
    data = "click,site\n" + "".join(f"{int(n > 9000)},s{n // 3000}\n" for n in range(12_000))
    with s3_server(monkeypatch, "proposed") as client:
        client.put_object(Bucket="proposed", Key="raw/day_0.csv", Body=data.encode())
        text = propose(["s3://proposed/raw/day_*"], Asked(rows=100))
        assert "2 values" in next(line for line in text.splitlines() if line.startswith("label"))
        assert " 20 places " in text
        assert "--input 's3://proposed/raw/day_*'" in text
        assert tree_of(text)["categorical"] == {"site": {}}
        with pytest.raises(UserError, match=r"s3://proposed/raw/none\.csv: no such file"):
            propose(["s3://proposed/raw/none.csv"], Asked())
