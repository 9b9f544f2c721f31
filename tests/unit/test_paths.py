"""Files that are written whole, inside of a folder, and never through a link."""

import errno
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dmoe.errors import UserError
from dmoe.storage.paths import append_text, inside, no_links, remove_files, write_atomic, write_text


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder outside, whose files nobody may touch."""
    (tmp_path / "home" / "documents").mkdir(parents=True)
    for name in ("a", "documents/b"):
        (tmp_path / "home" / name).write_text("precious")
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def _untouched(victim: Path):
    yield
    assert {path.name: path.read_text() for path in victim.rglob("*") if path.is_file()} == {"a": "precious", "b": "precious"}


def test_a_file_is_whole_or_not_there(tmp_path):
    path = str(tmp_path / "x")
    write_text(path, "old")

    def fail() -> None:
        with write_atomic(path) as file:
            file.write(b"half")
            assert Path(path).read_text() == "old"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert Path(path).read_text() == "old"
    write_text(path, "größer")
    assert Path(path).read_text(encoding="utf-8") == "größer"
    assert sorted(os.listdir(tmp_path)) == ["home", "x"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_what_cannot_be_written_is_named_by_its_own_name(tmp_path, number):
    path = str(tmp_path / "no folder" / "x")
    with pytest.raises(FileNotFoundError) as absent:
        write_text(path, "x")
    assert absent.value.filename == path

    def fill() -> None:
        with write_atomic(str(tmp_path / "x")):
            raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=r"[Ss]pace|[Qq]uota") as full:
        fill()
    assert full.value.filename == str(tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == ["home"]


def test_a_link_is_replaced_and_not_written_through(tmp_path, victim):
    (tmp_path / "x").symlink_to(victim / "a")
    (tmp_path / "dangling").symlink_to(victim / "new")
    for name in ("x", "dangling"):
        write_text(str(tmp_path / name), "mine")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "mine"


def test_a_name_that_is_guessed_does_not_help(tmp_path, victim, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".guessed.tmp").symlink_to(victim / "a")
    with pytest.raises(FileExistsError):
        write_text(str(tmp_path / "x"), "mine")
    assert not (tmp_path / "x").exists()


def test_writers_of_one_file_do_not_meet(tmp_path):
    path, texts = str(tmp_path / "x"), [str(number) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_text(path, text, sync=False), texts))
    assert Path(path).read_text() in texts
    assert sorted(os.listdir(tmp_path)) == ["home", "x"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(UserError, match=f"/{name}: "):
            write_text(str(tmp_path / name), "x")


def test_appending_refuses_a_link(tmp_path, victim):
    path = str(tmp_path / "lines")
    append_text(path, "one\n")
    append_text(path, "two\n")
    assert Path(path).read_text() == "one\ntwo\n"
    (tmp_path / "link").symlink_to(victim / "a")
    with pytest.raises(UserError, match=r"link: .*link"):
        append_text(str(tmp_path / "link"), "x")


def test_a_path_is_inside_its_folder(tmp_path, victim):
    (tmp_path / "run" / "own").mkdir(parents=True)
    (tmp_path / "linked run").symlink_to(tmp_path / "run")
    (tmp_path / "run" / "link").symlink_to(victim)
    for folder in (str(tmp_path / "run"), str(tmp_path / "linked run")):
        assert inside(folder, "own", "x.json") == f"{folder}/own/x.json"
        assert inside(folder, "train/part-00000.parquet") == f"{folder}/train/part-00000.parquet"
        for names in (("..",), ("a/../..",), ("",), ("/etc",), ("a", "."), ("a\0b",), ("own//x",)):
            with pytest.raises(UserError, match=f"^{re.escape(folder)}: '"):
                inside(folder, *names)
        for names in (("link",), ("link", "documents"), ("link/a",)):
            with pytest.raises(UserError, match=r"link: .*link"):
                inside(folder, *names)
    assert inside("s3://bucket/x", "a") == "s3://bucket/x/a"
    assert inside("", "a") == "a"


def test_a_folder_of_our_own_holds_no_link(tmp_path, victim):
    (tmp_path / "work" / "deep").mkdir(parents=True)
    no_links(str(tmp_path / "work"))
    (tmp_path / "work" / "deep" / "link").symlink_to(victim)
    with pytest.raises(UserError, match=r"work/deep/link: .*link"):
        no_links(str(tmp_path / "work"))


def test_only_files_of_ours_are_removed(tmp_path, victim):
    folder = tmp_path / "train"
    folder.mkdir()
    for name in ("part-00000.parquet", "part-00001.parquet", "thesis.tex"):
        (folder / name).write_text("x")
    (folder / "part-00002.parquet").symlink_to(victim / "a")
    remove_files(str(folder), r"part-\d{5}\.parquet")
    assert os.listdir(folder) == ["thesis.tex"]
    remove_files(str(folder), ".*")
    assert not folder.exists()
    remove_files(str(folder), ".*")
