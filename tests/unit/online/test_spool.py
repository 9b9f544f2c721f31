"""Standard input becomes files of so many lines, numbered on over restarts."""

import io
from pathlib import Path

import pytest

from dmoe.config.online_settings import WindowsConfig
from dmoe.data.prepare.schema import parse_schema
from dmoe.errors import UserError
from dmoe.online.ledger import Ledger, as_lines
from dmoe.online.windows.source import SourceFile, complete_files
from dmoe.online.windows.spool import Spool, inbox
from tests.waiting import wait_for

WINDOWS = WindowsConfig(by="rows", size=2.0)


def spooled(run: Path, text: str, state, **schema) -> list[str]:
    tree = {"label": "click", "categorical": ["site"], **schema}
    spool = Spool(str(run), parse_schema(tree, "schema"), WINDOWS, io.BytesIO(text.encode()))
    spool.start(state)
    wait_for(lambda: spool.ended)
    return [Path(one.name).read_text() for one in complete_files(inbox(str(run)), "renamed")]


def test_lines_become_files_with_the_header_that_are_numbered_on(tmp_path: Path):
    ledger = Ledger(str(tmp_path), None)
    text = "click,site\n0,a\n1,b\n0,c\n"
    assert spooled(tmp_path, text, ledger.state("")) == ["click,site\n0,a\n1,b\n", "click,site\n0,c\n"]
    names = [one.name for one in complete_files(inbox(str(tmp_path)), "renamed")]
    ledger.add({"window": 1, "state": "trained", "rows": 3, "files": as_lines([SourceFile(name, 1, 1, name) for name in names])})
    Spool.forget(str(tmp_path), [*names, "elsewhere"])
    assert complete_files(inbox(str(tmp_path)), "renamed") == []
    assert spooled(tmp_path, text, ledger.state(""), header=False, columns=["click", "site"]) == ["click,site\n0,a\n", "1,b\n0,c\n"]
    assert [Path(one.name).name for one in complete_files(inbox(str(tmp_path)), "renamed")] == ["part-000000003", "part-000000004"]


def test_windows_of_stdin_are_of_rows_and_its_rows_are_lines(tmp_path: Path):
    tree = {"label": "click", "categorical": ["site"]}
    with pytest.raises(UserError, match=r"online\.windows\.by"):
        Spool(str(tmp_path), parse_schema(tree, "schema"), WindowsConfig())
    with pytest.raises(UserError, match="parquet"):
        Spool(str(tmp_path), parse_schema(tree | {"format": "parquet"}, "schema"), WINDOWS)
