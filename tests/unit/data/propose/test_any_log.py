"""Of any log at all, a schema is proposed that preprocessing takes and reads the rows by, or the log is refused in one line."""

import csv
import io
import itertools
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmoe.config.yaml_files import parse_yaml
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.propose.proposal import propose
from dmoe.data.prepare.propose.sample import Asked
from dmoe.data.prepare.schema import parse_schema
from dmoe.errors import UserError
from tests.log_files import PACKED, packed

FOLDERS = itertools.count()


def made_or_refused(path: Path, **options: Any) -> str | None:
    """Why the log was refused; None where a schema was proposed, and the log prepared by it with the share of bad rows that it names."""
    refused, text = "", ""
    try:
        text = propose([str(path)], Asked(), **options)
    except UserError as error:
        refused = str(error)
    assert "\n" not in refused
    if not text:
        assert refused
        return refused
    words = shlex.split(next(line for line in text.splitlines() if line.startswith("#   dmoe "))[1:])
    share = float(words[words.index("--max-bad-share") + 1]) if "--max-bad-share" in words else 0.001
    schema = parse_schema(parse_yaml(text), "s")
    done = preprocess(Options([str(path)], str(path.parent / "d"), schema=schema, max_bad_share=share, workers=1, overwrite=True))
    rows = sum(split.rows for split in done.manifest.splits.values())
    assert rows
    assert rows + sum(done.bad_lines.values()) == done.lines
    return None


names = st.lists(
    st.sampled_from(
        ["click", "label", "user_id", "price", "ts", "w", "tags", "a b", "x:y", "#", "", "é", "@g", "null", "- z", "{}", "1", "C1"]
    )
    | st.text(max_size=5),
    min_size=2,
    max_size=6,
    unique=True,
)
cells = st.one_of(
    st.sampled_from([["0", "1"]]),
    st.lists(st.integers(-3, 10**10).map(str) | st.just(""), min_size=1, max_size=9),
    st.lists(st.floats(allow_nan=False, allow_infinity=False).map(str) | st.sampled_from(["", "NA", "NULL"]), min_size=1, max_size=9),
    st.lists(
        st.sampled_from(["a", "b", "a|b", "b|c|a", "x,y", 'say "hi"', "two\nlines", "NULL", "", "-1", "0001", "deadbeef"]),
        min_size=1,
        max_size=9,
    ),
    st.lists(st.datetimes().map(str), min_size=1, max_size=9),
    st.lists(st.text(max_size=6), min_size=1, max_size=9),
)


@settings(max_examples=80, deadline=None)
@given(
    names=names,
    columns=st.lists(cells, min_size=6, max_size=6),
    rows=st.integers(1, 60),
    form=st.sampled_from([",", "\t", ";", "jsonl", "parquet"]),
    header=st.booleans(),
)
@example(names=["click", "-1"], columns=[["0", "1"], ["-1", "a"], ["x"], ["x"], ["x"], ["x"]], rows=50, form="jsonl", header=True)
def test_a_table_of_any_columns(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], columns: list[list[str]], rows: int, form: str, header: bool
):
    folder = tmp_path_factory.getbasetemp() / f"table-{next(FOLDERS)}"
    folder.mkdir()
    table = {name: [values[row % len(values)] for row in range(rows)] for name, values in zip(names, columns, strict=False)}
    table["clicked"] = [str(row % 2) for row in range(rows)]
    lines = [list(row) for row in zip(*table.values(), strict=True)]
    if form == "parquet":
        try:
            pq.write_table(pa.table(table), folder / "log")
        except (UnicodeEncodeError, pa.ArrowException):
            table = {"clicked": table["clicked"], "s": ["x", "y"][: rows % 2 + 1] * rows}
            pq.write_table(pa.table({"clicked": table["clicked"], "s": table["s"][:rows]}), folder / "log")
    elif form == "jsonl":
        text = "".join(json.dumps(dict(zip(table, row, strict=True))) + "\n" for row in lines)
        (folder / "log").write_text(text)
    else:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=form, lineterminator="\n").writerows([list(table), *lines] if header else lines)
        (folder / "log").write_bytes(out.getvalue().encode("utf-8", "surrogatepass"))
    made_or_refused(folder / "log", **({"label": "clicked"} if header or form in ("jsonl", "parquet") else {}))
    shutil.rmtree(folder)


@settings(max_examples=150, deadline=None)
@given(
    head=st.sampled_from([b"", b"click,site\n", b"0\t1\n", b'{"click": 1}\n', b"PAR1", b"\x1f\x8b", b"\xef\xbb\xbf", b'"', b"[", b"a|b\n"]),
    body=st.binary(max_size=200) | st.text(max_size=80).map(lambda text: text.encode()),
    how=st.sampled_from(PACKED),
)
@example(head=b"PAR1", body=b"PAR1", how="plain")
@example(head=b"click,site\n", body=b'1,"open\n0,b\n', how="plain")
@example(head=b"", body=b"\n\x1a\r", how="plain")
@example(head=b"", body=b"1,\n0,\n" * 9, how="plain")
def test_a_file_of_anything(tmp_path_factory: pytest.TempPathFactory, head: bytes, body: bytes, how: str):
    folder = tmp_path_factory.getbasetemp() / f"any-{next(FOLDERS)}"
    folder.mkdir()
    (folder / "log").write_bytes(packed(head + body, how))
    made_or_refused(folder / "log")
    shutil.rmtree(folder)


def test_a_plain_log_is_not_refused(tmp_path: Path):
    """Or the tests above would prove nothing."""
    (tmp_path / "log").write_text("clicked,site\n" + "0,a\n1,b\n" * 9)
    assert made_or_refused(tmp_path / "log", label="clicked") is None
