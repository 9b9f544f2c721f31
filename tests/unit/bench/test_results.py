"""A table that was saved is read again as it was, so that a later run can add its points."""

from dataclasses import replace
from pathlib import Path

from tools.bench.results import Row, draw, read, save

ROW = Row("dmoe", 100, 3, 64, 1, 2, "plain", 12.5, 0.1, 20.0, 5120.0, 300.0, 2.0, 1.5, 3, 0.5, 14_400, 242_708, "")


def test_a_table_is_read_as_it_was_saved(tmp_path: Path) -> None:
    table = [ROW, replace(ROW, contender="dmoe", error="ended with exit code 1: no, really", step_ms=float("inf"))]
    save(table, str(tmp_path / "a" / "table.csv"))
    assert read(str(tmp_path / "a" / "table.csv")) == table
    assert read(str(tmp_path / "none.csv")) == []
    draw(table, str(tmp_path / "picture.png"))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
