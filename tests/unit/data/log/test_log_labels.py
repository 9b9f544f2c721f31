"""The value of a label that is 1, and logs to score, which need no label."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.summary import summarize
from dmoe.errors import UserError
from tests.unit.data.log.click_log import HEADER, ROWS, clicks, make, preprocess, refusal, score, sites, text
from tests.unit.data.log.logs import read_split

# The value of a label that is 1.


TRUE, FALSE = 24, 36
ANY_ROWS = [(n % 5 < 2, f"s{n % 4}", "d") for n in range(60)]


@pytest.mark.parametrize(
    ("label", "positive"),
    [
        (("True", "False"), "true"),
        (("TRUE", "FALSE"), "True"),
        (("true", "false"), True),
        (("False", "True"), False),
        (("1.0", "0.0"), "1"),
        (("1", "0"), "1.0"),
        (("1", "0"), 1),
        (("1e0", "-1"), 1),
        (("-1.0", "1.0"), -1),
        (("12345678901234567891", "12345678901234567890"), "12345678901234567891.0"),
        (("yes", "no"), "yes"),
        (("größe", "große"), "größe"),
    ],
)
def test_positive_is_compared_by_its_type(tmp_path: Path, label: tuple[str, str], positive: Any):
    tree = {"label": {"column": "click", "positive": positive}}
    make(tmp_path, text(ANY_ROWS, label=lambda click: label[not click]), tree=tree)
    assert clicks(tmp_path) == [int(click) for click, _, _ in ANY_ROWS]
    assert isinstance(load_manifest(str(tmp_path / "d")).made_by["schema"]["label"]["positive"], str)  # type: ignore[index]


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        (pa.array([click for click, _, _ in ANY_ROWS]), "true"),
        (pa.array([click for click, _, _ in ANY_ROWS]), "1"),
        (pa.array([not click for click, _, _ in ANY_ROWS]), False),
        (pa.array([float(click) for click, _, _ in ANY_ROWS]), "1"),
        (pa.array([2 * click - 1 for click, _, _ in ANY_ROWS], pa.int8()), "1.0"),
        (pa.array(["True" if click else "False" for click, _, _ in ANY_ROWS]).dictionary_encode(), "true"),
    ],
    ids=["boolean", "boolean as a number", "false", "float", "int8", "dictionary of texts"],
)
def test_positive_is_compared_by_the_type_of_a_parquet_column(tmp_path: Path, values: pa.Array, positive: Any):
    table = pa.table({"click": values, "site": [site for _, site, _ in ANY_ROWS], "device": ["d"] * 60})
    pq.write_table(table, tmp_path / "log")
    tree = {"format": "parquet", "label": {"column": "click", "positive": positive}}
    make(tmp_path, (tmp_path / "log").read_bytes(), tree=tree)
    assert clicks(tmp_path) == [int(click) for click, _, _ in ANY_ROWS]


@pytest.mark.parametrize(
    ("label", "positive", "values"),
    [
        (("True", "False"), "yes", [("False", FALSE), ("True", TRUE)]),
        (("Yes", "no"), "yes", [("no", FALSE), ("Yes", TRUE)]),
        (("größe\x1b[2J", "0"), "1", [("0", FALSE), ("größe\\x1b[2J", TRUE)]),
    ],
)
def test_a_positive_that_never_occurs_is_refused_with_the_values_that_do(
    tmp_path: Path, label: tuple[str, str], positive: str, values: list[tuple[str, int]]
):
    with pytest.raises(UserError) as caught:
        make(
            tmp_path,
            text(ANY_ROWS, label=lambda click: label[not click]),
            tree={"label": {"column": "click", "positive": positive}},
            block_bytes=200,
        )
    message = str(caught.value)
    assert message.startswith("schema.yaml: label.positive: ")
    assert f"'{positive}'" in message
    places = [message.index(f"'{value}' ({count} rows)") for value, count in values]
    assert places == sorted(places)
    assert message.isprintable()


def test_of_many_values_the_most_frequent_are_shown(tmp_path: Path):
    labels = [str(n) for n in range(1, 40)] + ["seven"] * 9
    log = "\n".join([HEADER, *(f"{label},s,d" for label in labels)])
    with pytest.raises(UserError, match=r"values are 'seven' \(9 rows\), .*\(1 rows\), \.\.\.$"):
        make(tmp_path, log, tree={"label": {"column": "click", "positive": "yes"}})


@pytest.mark.parametrize(("positive", "strange"), [(True, "1"), (True, "0.0"), ("1", "true"), (1, "False")])
def test_numbers_beside_a_boolean_positive_are_bad_rows_and_the_reverse(tmp_path: Path, positive: Any, strange: str):
    rows = text(label=lambda click: str(click) if positive is True else str(int(click)))
    said = refusal(tmp_path, f"{rows}{strange},s1,d1\n", tree={"label": {"column": "click", "positive": positive}})
    assert f"log.csv:{len(ROWS) + 2}: click is '{strange}'" in said


def test_a_file_that_writes_its_labels_in_another_way_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, words in (("a", ("yes", "no")), ("b", ("Yes", "No")), ("c", ("no", "no"))):
        (tmp_path / f"{name}.csv").write_text(text(label=lambda click, words=words: words[not click]))
    schema = parse_schema({"label": {"column": "click", "positive": "yes"}, "categorical": ["site"]}, "s")
    preprocess(tmp_path, "*.csv", "d", schema=schema, split="1,0,0")
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warned) == 1
    assert "b.csv: " in warned[0]


def test_later_rows_without_a_positive_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A short log may have no click; that the schema's value is right was seen when its ids were made."""
    make(tmp_path, text(label=lambda click: "yes" if click else "no"), tree={"label": {"column": "click", "positive": "yes"}})
    from dmoe.data.prepare.kept import load_kept

    (tmp_path / "next.csv").write_text(text(label=lambda click: "no"))
    preprocess(tmp_path, "next.csv", "next", schema=load_kept(str(tmp_path / "d")).schema, vocabulary=str(tmp_path / "d"))
    assert "'no' (60 rows)" in capsys.readouterr().err


@pytest.mark.parametrize(("label", "named"), [("1", "label 1"), ("0", "label 0")])
def test_a_label_of_one_class_is_named(tmp_path: Path, label: str, named: str):
    said = summarize(make(tmp_path, text(label=lambda click: label)), "d")
    assert [line for line in said.splitlines() if "60 rows of train" in line and named in line]
    (tmp_path / "both").mkdir()
    assert "have label" not in summarize(make(tmp_path / "both", text()), "d")


# A log to score.


@pytest.mark.parametrize("label", ["", "-1", "?", "2"])
def test_a_log_to_score_needs_no_label_that_can_be_read(tmp_path: Path, label: str, capsys: pytest.CaptureFixture[str]):
    make(tmp_path, text())
    done = score(tmp_path, text(label=lambda click: label))
    assert (done.lines, sum(done.bad_lines.values())) == (60, 0)
    assert sites(tmp_path, "scores", "score") == [site for _, site, _ in ROWS]
    split = load_manifest(str(tmp_path / "scores")).splits["score"]
    assert (split.labelled, split.positives) == (False, 0)
    assert re.search("60 .*60 .*label", capsys.readouterr().err)


def test_one_label_that_cannot_be_read_leaves_all_labels_out(tmp_path: Path):
    make(tmp_path, text())
    score(tmp_path, text() + ",s1,d1\n", block_bytes=50)
    assert "label" not in read_split(tmp_path / "scores", "score")[0]
    assert load_manifest(str(tmp_path / "scores")).splits["score"].rows == 61


def test_labels_that_can_be_read_are_kept(tmp_path: Path):
    make(tmp_path, text())
    score(tmp_path, text())
    assert [row["label"] for row in read_split(tmp_path / "scores", "score")] == [int(click) for click, _, _ in ROWS]


def test_labels_among_which_the_positive_one_does_not_occur_are_left_out(tmp_path: Path):
    make(tmp_path, text(label=lambda click: "yes" if click else "no"), tree={"label": {"column": "click", "positive": "yes"}})
    score(tmp_path, text(label=lambda click: "-1"))
    assert not load_manifest(str(tmp_path / "scores")).splits["score"].labelled


@pytest.mark.parametrize("absent", [False, True])
def test_weight_group_and_time_decide_no_score_either(tmp_path: Path, absent: bool):
    tree = {"weight": "w", "group": "user", "time": {"column": "at", "format": "unix"}}
    log = "click,site,device,w,user,at\n" + "".join(f"{int(click)},{site},{device},1,u,5\n" for click, site, device in ROWS)
    make(tmp_path, log, tree=tree)
    columns, values = ("site,device", "") if absent else ("site,device,w,user,at", ",0,,?")
    done = score(tmp_path, f"{columns}\n" + "".join(f"{site},{device}{values}\n" for _, site, device in ROWS))
    assert not done.bad_lines
    manifest = load_manifest(str(tmp_path / "scores"))
    assert (manifest.weight, manifest.splits["score"].rows) == (None, 60)
    assert sites(tmp_path, "scores", "score") == [site for _, site, _ in ROWS]
    score(tmp_path, log)
    assert read_split(tmp_path / "scores", "score")[0].keys() >= {"label", "@weight", "@group"}


def test_a_time_that_a_feature_is_made_of_is_needed(tmp_path: Path):
    tree = {"time": {"column": "at", "format": "unix"}, "categorical": ["site", {"name": "hour", "part": "hour"}]}
    make(tmp_path, "click,site,at\n" + "".join(f"{int(click)},{site},7200\n" for click, site, _ in ROWS), tree=tree)
    assert score(tmp_path, "site,at\n" + "s1,7200\n" * 20 + "s1,?\n").bad_lines == {"time": 1}
    with pytest.raises(UserError, match="'at'"):
        score(tmp_path, "site\ns1\n")


def test_a_number_that_is_none_takes_a_row_out_of_a_log_to_score(tmp_path: Path):
    tree = {"dense": ["price"]}
    make(tmp_path, "click,site,device,price\n" + "0,a,b,1\n1,a,b,2\n" * 9, tree=tree)
    assert score(tmp_path, "site,device,price\n" + "a,b,1\n" * 20 + "a,b,$1\n").bad_lines == {"number": 1}
