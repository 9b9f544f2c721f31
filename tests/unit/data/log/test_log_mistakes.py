"""Mistakes in a log, its schema or the data set whose vocabulary is kept: one line that names the place."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.prepare import stages
from dmoe.data.prepare.schema import load_schema
from dmoe.errors import UserError
from tests.unit.data.log.logs import make, make_rows, schema, write_csv


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_csv(tmp_path / "log.csv", make_rows(300))
    return tmp_path / "log.csv"


def test_one_time_for_all_rows_cannot_split_them(tmp_path: Path):
    write_csv(tmp_path / "log.csv", [row | {"at": "2024-01-01 00:00:00"} for row in make_rows(20)])
    with pytest.raises(UserError, match="--split-by time: "):
        make(tmp_path / "d", tmp_path / "log.csv", split_by="time")


def test_a_log_that_is_written_to_while_it_is_read_is_refused(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch):
    staged = stages.parse_files

    def growing(*arguments: Any) -> Any:
        with log.open("ab") as file:
            file.write(b"more\n")
        return staged(*arguments)

    monkeypatch.setattr(stages, "parse_files", growing)
    with pytest.raises(UserError, match=r"log.csv: changed"):
        make(tmp_path / "d", log, max_bad_share=1)


def test_a_kept_vocabulary_that_is_damaged_is_one_clear_line(tmp_path: Path, log: Path):
    folder = make(tmp_path / "d", log)
    (folder / "vocabulary" / "site.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"^/\S*vocabulary/site\.parquet: .*read"):
        make(tmp_path / "s", log, vocabulary=str(folder), scoring=True)
    (folder / "vocabulary" / "site.parquet").unlink()
    with pytest.raises(UserError, match=r"^/\S*vocabulary/site\.parquet: .*read"):
        make(tmp_path / "s", log, vocabulary=str(folder), scoring=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "click"}, "log.csv:1: no column 'click', which schema.yaml reads (label), did you mean 'clicked'?"),
        ({"weight": "wait"}, "log.csv:1: no column 'wait', which schema.yaml reads (weight)"),
        ({"label": "site"}, "log.csv:2: site is"),
        ({"format": "parquet", "delimiter": None}, "log.csv: not a parquet file"),
    ],
)
def test_a_schema_that_is_not_the_logs_is_one_clear_line(tmp_path: Path, change: dict[str, Any], message: str):
    write_csv(tmp_path / "log.csv", [row | {"site": "2"} for row in make_rows(20)])
    with pytest.raises(UserError) as caught:
        make(tmp_path / "d", tmp_path / "log.csv", schema=schema(**change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ([["x"]], "log.parquet: column 'site' is list<element: string>; say how its values become one"),
        ([{"x": 1}], "column 'site' is struct"),
    ],
)
def test_a_parquet_column_of_another_kind_is_one_clear_line(tmp_path: Path, site: list[Any], message: str):
    row = make_rows(1)[0]
    columns: dict[str, Any] = {name: [row[name]] for name in row} | {"site": site, "tags": [["t1"]]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    with pytest.raises(UserError) as caught:
        make(tmp_path / "d", tmp_path / "log.parquet", schema=schema(format="parquet"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label: click\ncategorical: [a]\nweigth: w", "weigth: unknown key, did you mean 'weight'?"),
        ("label: click\ncategorical:\n- {name: a, pool: sum}", "categorical.0.pool: unknown key, did you mean 'pooling'?"),
        ("label: click\ncategorical:\n- {name: a, pooling: max}", "categorical.0.pooling: input should be 'sum' or 'mean', found 'max'"),
        ("label: click\ncategorical:\n- {name: a, pooling: sum}", "'a' has pooling, so say what separates its values"),
        ("label: click\ncategorical:\n- {name: h, part: hour}\ntime: t", "'h' is a part of the time: give time:"),
        ("categorical: [a]", "label: field required"),
        ("label: click\ncategorical: [a, a]", "two features are named 'a'"),
        ('label: click\ncategorical: ["a\\eb"]', "a feature cannot be named 'a\\x1bb'"),
        ("label: click\ncategorical: [a]\ndelimiter: '·'", "delimiter, quote: expected an ASCII character"),
        ("label: click\ncategorical: [a]\nquote: '»'", "delimiter, quote: expected an ASCII character"),
        ("label: [", "schema.yaml:1: not YAML"),
        ("- a", "expected keys such as 'label:'"),
    ],
)
def test_a_wrong_schema_names_its_key(tmp_path: Path, text: str, message: str):
    path = tmp_path / "schema.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_schema(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
