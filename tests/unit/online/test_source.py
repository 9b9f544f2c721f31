"""Which files make a window, and what is told of the others."""

import os
from pathlib import Path

import pytest

from dmoe.checkpoint.progress import OnlineState
from dmoe.config.online_settings import WindowsConfig
from dmoe.errors import UserError
from dmoe.online.ledger import Ledger, as_lines
from dmoe.online.windows.source import Choice, Chooser, SourceFile, complete_files


def chooser(**settings) -> Chooser:
    def seconds(path: str) -> float | None:
        text = Path(path).read_text()
        return float(text) if text else None

    return Chooser(WindowsConfig(**settings), rows_of=lambda path: len(Path(path).read_text()), time_of=seconds)


def names(choice: Choice | None) -> list[str]:
    return [os.path.basename(one.name) for one in choice.files] if choice else []


def test_files_count_once_they_have_their_name_in_natural_order(tmp_path: Path):
    for name in ("day_10.csv", "day_2.csv", ".day_3.csv", "day_4.csv.tmp", "_note", "day_5.csv.inprogress"):
        (tmp_path / name).write_text(name)
    found = complete_files(str(tmp_path), "renamed")
    assert [os.path.basename(one.name) for one in found] == ["day_2.csv", "day_10.csv"]
    assert found == complete_files(str(tmp_path / "day_*"), "renamed")
    assert found[0].bytes == len("day_2.csv")
    assert complete_files(str(tmp_path / "nowhere"), "renamed") == []
    with pytest.raises(UserError, match="nosuch://"):
        complete_files("nosuch://bucket/logs/", "renamed")


def test_a_folder_counts_once_it_has_success(tmp_path: Path):
    for hour in ("09", "10"):
        (tmp_path / hour).mkdir()
        (tmp_path / hour / "part-0").write_text(hour)
    (tmp_path / "09" / "_SUCCESS").touch()
    assert [one.name for one in complete_files(str(tmp_path), "success")] == [str(tmp_path / "09" / "part-0")]


def test_windows_of_files_wait_for_all_of_them(tmp_path: Path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    files, choose = complete_files(str(tmp_path), "renamed"), chooser(size=2.0).choose
    assert names(choose(files, {}, set(), "", ended=False)) == ["a", "b"]
    taken = {one.name: one for one in files[:2]}
    assert choose(files, taken, set(), files[1].name, ended=False) is None
    assert names(choose(files, taken, set(), files[1].name, ended=True)) == ["c"]


def test_windows_of_rows_and_of_time_are_whole_files(tmp_path: Path):
    for name, text in (("a", "1000"), ("b", "1030"), ("c", "1070"), ("d", "1055")):
        (tmp_path / name).write_text(text)
    files = complete_files(str(tmp_path), "renamed")
    assert names(chooser(by="rows", size=9.0).choose(files, {}, set(), "", ended=False)) == ["a", "b", "c"]
    by_time = chooser(by="time", size=60.0)
    assert names(by_time.choose(files, {}, set(), "", ended=False)) == ["a"]
    taken = {files[0].name: files[0]}
    # [1020, 1080) has three files; nothing later has come, so more of it may.
    assert by_time.choose(files, taken, set(), files[0].name, ended=False) is None
    assert names(by_time.choose(files, taken, set(), files[0].name, ended=True)) == ["b", "c", "d"]
    # Files without a time belong to the oldest window.
    for name in ("a0", "e"):
        (tmp_path / name).touch()
    files = complete_files(str(tmp_path), "renamed")
    assert names(chooser(by="time", size=60.0).choose(files, {}, set(), "", ended=False)) == ["a", "a0", "e"]


def test_late_changed_copied_and_vanished_files_are_named_and_not_used_twice(tmp_path: Path):
    for name in "bc":
        (tmp_path / name).write_text(f"text of {name}")
    choose, told = chooser().choose, set[str]()
    first = choose(complete_files(str(tmp_path), "renamed"), {}, told, "", ended=True)
    assert first is not None
    taken = {one.name: one for one in first.files}
    (tmp_path / "b").write_text("another text")
    (tmp_path / "a").write_text("an older file")
    files = complete_files(str(tmp_path), "renamed")
    second = choose(files, taken, told, str(tmp_path / "b"), ended=True)
    assert names(second) == ["a"]
    assert [kind for kind, _ in second.events] == ["changed", "late"]
    assert [name in text for name, (_, text) in zip([str(tmp_path / "b"), str(tmp_path / "a")], second.events, strict=True)] == [True, True]
    # What was told of a state of a file is told once.
    told = set(second.told)
    assert not [kind for kind, _ in choose(files, taken, told, str(tmp_path / "b"), ended=True).events if kind == "changed"]
    (tmp_path / "d").write_text("text of b")
    ghost = SourceFile(str(tmp_path / "e"), 3, 3)
    taken |= {one.name: one for one in second.files}
    choice = chooser(size=3.0).choose([*complete_files(str(tmp_path), "renamed"), ghost], taken, told, str(tmp_path / "b"), ended=True)
    assert names(choice) == ["c"]
    assert [os.path.basename(one.name) for one in choice.duplicates] == ["d"]
    assert sorted(kind for kind, _ in choice.events) == ["duplicate", "vanished"]


def test_a_touched_file_with_the_same_bytes_is_no_news(tmp_path: Path):
    (tmp_path / "a").write_text("text")
    choose = chooser().choose
    taken = {one.name: one for one in choose(complete_files(str(tmp_path), "renamed"), {}, set(), "", ended=True).files}
    os.utime(tmp_path / "a", ns=(1, 1))
    choice = choose(complete_files(str(tmp_path), "renamed"), taken, set(), "", ended=True)
    assert (choice.files, choice.duplicates, choice.events) == ([], [], [])


def test_a_ledger_is_cut_to_what_the_checkpoint_names_and_refused_where_it_differs(tmp_path: Path):
    line = {"window": 1, "state": "trained", "rows": 3, "duplicates": []}
    ledger = Ledger(str(tmp_path), None)
    ledger.add(line | {"files": as_lines([SourceFile("logs/a", 1, 2, "0")])})
    state: OnlineState = ledger.state("000001")
    ledger.add(line | {"window": 2, "state": "quarantined", "files": as_lines([SourceFile("logs/b", 1, 2, "1")])})
    assert (ledger.window, ledger.in_a_row(), len(ledger.good())) == (3, 1, 1)
    again = Ledger(str(tmp_path), state)
    assert (again.window, set(again.taken), again.newest, again.state("000001")) == (2, {"logs/a"}, "logs/a", state)
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 1
    (tmp_path / "ledger.jsonl").write_text((tmp_path / "ledger.jsonl").read_text().replace('"rows": 3', '"rows": 4'))
    with pytest.raises(UserError, match=r"ledger\.jsonl"):
        Ledger(str(tmp_path), state)
