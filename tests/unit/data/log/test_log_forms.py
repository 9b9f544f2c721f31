"""Forms that logs come in: joined parts, one column, marks and empty lines, labels of any type, and labels that a log to score lacks."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare import pipeline
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import Result
from dmoe.data.prepare.rejects import shown
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.summary import summarize
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


# A header again.


@pytest.mark.parametrize(
    ("again", "line"),
    [(HEADER, 62), ('"click","site","device"', 62), (f"\ufeff{HEADER}\r", 62), ('\ufeffclick,"site",device', 62)],
    ids=["as it is", "quoted", "of a part with a mark", "quoted behind a mark"],
)
@pytest.mark.parametrize("positive", [None, "1"])
@pytest.mark.parametrize("block_bytes", [40, 1 << 20])
def test_a_header_within_the_log_is_a_bad_line_of_its_own_kind(
    tmp_path: Path, again: str, line: int, positive: str | None, block_bytes: int
):
    tree = {"label": {"column": "click", "positive": positive}} if positive else {}
    done = make(tmp_path, text() + text(header=again), block_bytes=block_bytes, tree=tree)
    assert done.bad_lines == {"repeated header": 1}
    assert clicks(tmp_path) == [int(click) for click, _, _ in ROWS] * 2
    (rejects,) = (tmp_path / "d" / "rejects").iterdir()
    found = rejects.read_bytes().split(b"\n")[1].split(b"\t")
    assert found[1:3] == [str(line).encode(), b"repeated header"]
    with pytest.raises(UserError, match=rf"log\.csv:{line}: .*1 .*121"):
        make(tmp_path, text() + text(header=again), tree=tree, overwrite=True, max_bad_share=0)


def test_a_log_without_a_header_knows_one_by_the_schemas_names(tmp_path: Path):
    tree = {"header": False, "columns": ["click", "site", "device"], "label": {"column": "click", "positive": "1"}}
    done = make(tmp_path, text().partition("\n")[2] + text(), tree=tree)
    assert done.bad_lines == {"repeated header": 1}
    assert len(clicks(tmp_path)) == 120


def test_a_log_to_score_has_no_score_for_a_header(tmp_path: Path):
    make(tmp_path, text())
    part = "site,device\n" + "".join(f"{site},{device}\n" for _, site, device in ROWS)
    assert score(tmp_path, part + part).bad_lines == {"repeated header": 1}
    assert sites(tmp_path, "scores", "score") == [site for _, site, _ in ROWS] * 2


def test_a_header_in_another_order_ends_the_run(tmp_path: Path):
    """What follows would be read as other columns."""
    other = "device,site,click\n" + "".join(f"{device},{site},{int(click)}\n" for click, site, device in ROWS)
    tree = {"label": {"column": "click", "positive": "1"}}
    with pytest.raises(UserError, match=r"log\.csv:62: .*header"):
        make(tmp_path, text() + other, max_bad_share=1, tree=tree)
    assert not (tmp_path / "d" / "manifest.json").exists()


# One column.


@pytest.mark.parametrize("block_bytes", [3, 1 << 20])
def test_a_log_of_one_column_keeps_its_rows_in_step_with_its_lines(tmp_path: Path, block_bytes: int):
    """An empty line is a row without a value there, also the last one."""
    make(tmp_path, text())
    values = ["s1", "", '""', "s2", "", "s3", '"s4"', '"s0', "s1", "", ""]
    done = score(tmp_path, "site\n" + "\n".join(values) + "\n", block_bytes=block_bytes, vocabulary=one_feature(tmp_path))
    assert done.bad_lines == {"fields": 1}
    assert done.lines == len(values)
    assert sites(tmp_path, "scores", "score") == ["s1", None, None, "s2", None, "s3", "s4", "s1", None, None]
    (rejects,) = (tmp_path / "scores" / "rejects").iterdir()
    assert rejects.read_bytes().split(b"\n")[1].split(b"\t")[1] == b"9"


def one_feature(folder: Path) -> str:
    """A data set of one feature takes the place of the first."""
    make(folder, text(), tree={"categorical": ["site"]}, overwrite=True)
    return str(folder / "d")


def test_a_log_of_one_column_of_windows(tmp_path: Path):
    one_feature(tmp_path)
    score(tmp_path, b'\xef\xbb\xbfsite\r\ns1\r\n\r\n""\r\ns2')
    assert sites(tmp_path, "scores", "score") == ["s1", None, None, "s2"]


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
    tree = {"label": {"column": "click", "positive": "yes"}, "categorical": ["site"]}
    pipeline.preprocess(Options([str(tmp_path / "*.csv")], str(tmp_path / "d"), schema=parse_schema(tree, "s"), split="1,0,0"))
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
    assert "60 of 60 rows have no label" in capsys.readouterr().err


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


# Ends and marks.


@pytest.mark.parametrize("end", ["\n", "\n\n\n", "\r\n\r\n", "\x1a", "\n" * 500])
@pytest.mark.parametrize("block_bytes", [7, 1 << 20])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_empty_lines_at_the_end_are_no_lines(tmp_path: Path, end: str, block_bytes: int, pack: Callable[[bytes], bytes]):
    done = make(tmp_path, pack((text() + end).encode()), block_bytes=block_bytes, max_bad_share=0)
    assert (done.lines, sum(done.bad_lines.values())) == (60, 0)


def test_an_empty_line_within_is_a_bad_line(tmp_path: Path):
    done = make(tmp_path, text() + "\n\n1,s1,d1\n\n")
    assert (done.lines, done.bad_lines) == (63, {"fields": 2})


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_a_byte_order_mark_is_no_part_of_a_value(tmp_path: Path, header: bool, block_bytes: int):
    """Nor is one of a part that was joined to another."""
    tree = {} if header else {"header": False, "columns": ["site", "click", "device"]}
    body = "".join(f"{site},{int(click)},{device}\n" for click, site, device in ROWS)
    make(tmp_path, "\ufeff" + "site,click,device\n" * header + body + "\ufeff" + body, tree=tree, block_bytes=block_bytes)
    assert sites(tmp_path) == [site for _, site, _ in ROWS] * 2


# What is said.


def refusal(folder: Path, log: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        make(folder, log, max_bad_share=0, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("—", "'—'"),
        ("日本", "'日本'"),
        ("\x1b[31m—", "'\\x1b[31m—'"),
        ("a\u202eb", "'a\\u202eb'"),
        ("\x9b2J", "'\\x9b2J'"),
        ("\\x", "'\\x'"),
    ],
)
def test_a_value_is_readable_and_cannot_reach_the_terminal(tmp_path: Path, value: str, found: str):
    log = f"click,site,device,price\n1,s,d,1\n0,s,d,{value}\n"
    assert f"log.csv:3: price is {found}, expected" in refusal(tmp_path, log, tree={"dense": ["price"]})
    (rejects,) = (tmp_path / "d" / "rejects").iterdir()
    fields = rejects.read_bytes().split(b"\n")[1].split(b"\t")
    assert f"price is {found}".encode() in fields[3]
    assert fields[4] == f"0,s,d,{value}".encode(), "the line itself is kept as it is"
    assert shown(value.encode()) == found


def test_bytes_that_are_no_text_are_escaped():
    assert shown(b"\xff\xfeab\n\0") == r"'\xff\xfeab\n\x00'"
    assert shown("größer als gedacht und noch mehr".encode()) == "'größer als gedacht un...'"


@pytest.mark.parametrize("label", ["True", "yes", "-1", "F"])
def test_another_label_gets_a_hint_at_positive(tmp_path: Path, label: str):
    said = refusal(tmp_path, text(label=lambda click: label))
    assert f"log.csv:2: click is '{label}', expected 0 or 1" in said
    assert "positive: ..." in said
    assert "positive" not in refusal(tmp_path, text(label=lambda click: "12"), overwrite=True)


def test_a_bad_line_below_the_header_gets_a_hint(tmp_path: Path):
    units = text().replace("\n", "\n,[name],[type]\n", 1)
    assert "log.csv:2: click is empty" in refusal(tmp_path, units)
    assert "a row of units" in refusal(tmp_path, units, overwrite=True)
    later = text() + ",s1,d1\n"
    assert "a row of units" not in refusal(tmp_path, later, overwrite=True)


def test_another_delimiter_is_told(tmp_path: Path):
    said = refusal(tmp_path, text().replace(",", ";"))
    assert "log.csv:1: no column 'click'" in said
    assert "';'" in said


def test_a_header_of_control_characters_cannot_reach_the_terminal(tmp_path: Path):
    assert "click\\x1b[2J" in refusal(tmp_path, text(header="click\x1b[2J,,"))


def test_a_first_line_that_is_empty_is_told(tmp_path: Path):
    assert "log.csv:1: the first line is empty" in refusal(tmp_path, "\n" + text())
