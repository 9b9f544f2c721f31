"""What a column of a log is taken for: the label and its positive value, times in their format, or nothing, with the reason."""

import random
from pathlib import Path

import pytest

from dmoe.data.prepare.propose.proposal import propose
from dmoe.data.prepare.propose.sample import Asked
from tests.unit.data.propose.proposing import ROWS, Tree, proposed, run, write


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
