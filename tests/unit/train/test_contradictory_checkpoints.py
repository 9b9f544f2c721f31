"""Checkpoints whose checksums hold and whose parts do not fit one another are refused, each by name."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmoe.checkpoint.contents import Contents
from dmoe.checkpoint.index import DENSE, INDEX, Index, Piece, _checksum, read_index, verify_checkpoint, write_index
from dmoe.checkpoint.inspect import verify
from dmoe.checkpoint.progress import progress_from
from dmoe.checkpoint.tensors import TensorFile, write_tensors
from dmoe.errors import UserError

TABLES, MORE = "tables-00000-00000.safetensors", "tables-00001-00000.safetensors"
SHAPES = {"C1/0": (4, 2), "C2/0": (5, 4)}
Tree = dict[str, Any]


def piece(table: str, state: str, row: int, column: int, rows: int, columns: int, file: str = TABLES) -> Piece:
    return Piece(table, state, row, column, rows, columns, file, f"{table}|{state}|{row}|{column}")


PIECES = (
    piece("C1/0", "weight", 0, 0, 4, 2),
    piece("C2/0", "weight", 0, 0, 3, 4),
    piece("C2/0", "weight", 3, 0, 2, 3),
    piece("C2/0", "weight", 3, 3, 2, 1, MORE),
    piece("C2/0", "sum", 0, 0, 5, 0, MORE),
)


def write_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> tuple[int, str]:
    with path.open("wb") as file:
        arrays = [np.full(shape, number, np.float32) for number, shape in enumerate(shapes.values())]
        return write_tensors(file, [(key, "F32", shape) for key, shape in shapes.items()], arrays)


def shape_of(one: Piece) -> tuple[int, ...]:
    return (one.rows, one.columns) if one.columns else (one.rows,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound checkpoint of two tables in pieces of rows and of columns, with a state a row, of step 13."""
    folder = tmp_path / "checkpoints" / "step-000000013"
    folder.mkdir(parents=True)
    files = {name: write_file(folder / name, {one.key: shape_of(one) for one in PIECES if one.file == name}) for name in (TABLES, MORE)}
    files[DENSE] = write_file(folder / DENSE, {"model/w": (3,)})
    write_index(str(folder), Index(dict(SHAPES), PIECES, files, {"step": 13}))
    return folder


def edit(folder: Path, change: Callable[[Tree], Any]) -> None:
    """Changes the index, and gives it a checksum that is right: who makes such a file up can do so too."""
    tree = json.loads((folder / INDEX).read_text())
    change(tree)
    tree["checksum"] = _checksum(tree)
    (folder / INDEX).write_text(json.dumps(tree))


def enter(folder: Path, name: str) -> None:
    """Enters a file's length and checksum, as they are now, into the index."""
    content = (folder / name).read_bytes()
    edit(folder, lambda tree: tree["files"].update({name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}))


def change_header(folder: Path, name: str, change: Callable[[Tree], Any]) -> None:
    content = (folder / name).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    enter(folder, name)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        verify_checkpoint(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_sound_one_is_read(folder: Path) -> None:
    assert ": sound: 3 files" in verify(str(folder))
    contents = Contents(str(folder))
    assert {name: contents.rows(name, 0, 5).shape for name in contents.names()}["C2/0"] == (5, 4)


def pieces(change: Callable[[list[list[Any]]], Any]) -> Callable[[Tree], Any]:
    return lambda tree: change(tree["pieces"])


INDEXES: dict[str, tuple[Callable[[Tree], Any], str]] = {
    "a step that is not its folder's": (lambda t: t["progress"].update(step=14), "progress.step is 14, but the folder is that of step 13"),
    "no step": (lambda t: t["progress"].clear(), "progress.step is None"),
    "a step that is true": (lambda t: t["progress"].update(step=True), "progress.step: "),
    "a version that is true": (lambda t: t.update(version=True), "checkpoint version True"),
    "two pieces of one tensor": (pieces(lambda p: p[2].__setitem__(7, p[1][7])), "two pieces are one tensor"),
    "rows that two pieces cover": (pieces(lambda p: p[2].__setitem__(2, 2)), "pieces of weight overlap"),
    "rows that no piece covers": (pieces(lambda p: p[1].__setitem__(4, 2)), "weight is not whole"),
    "a piece less": (pieces(lambda p: p.pop(2)), "weight is not whole"),
    "a piece twice": (pieces(lambda p: p.append(p[0])), "weight is not whole"),
    "a state in rows and in columns": (
        pieces(lambda p: (p.__setitem__(4, ["C2/0", "sum", 0, 0, 3, 0, MORE, "a"]), p.append(["C2/0", "sum", 3, 0, 1, 2, MORE, "b"]))),
        "pieces of sum",
    ),
    "a weight without columns": (pieces(lambda p: p[0].__setitem__(5, 0)), "a piece of weight has no columns"),
    "a file that holds no piece": (
        lambda t: t["files"].update({"tables-00002-00000.safetensors": t["files"][TABLES]}),
        "'tables-00002-00000.safetensors' holds no piece",
    ),
    "no dense part": (lambda t: t["files"].pop(DENSE), "dense.safetensors is not among its files"),
    "a table in the dense part": (pieces(lambda p: p[0].__setitem__(6, DENSE)), "a piece of a table lies in dense.safetensors"),
}


@pytest.mark.parametrize("what", INDEXES)
def test_an_index_that_contradicts_itself_is_refused(folder: Path, what: str) -> None:
    change, said = INDEXES[what]
    edit(folder, change)
    message = refusal(folder)
    assert message.startswith(f"{folder}/{INDEX}: ")
    assert said in message


def test_a_folder_of_another_name_says_nothing_of_the_step(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "kept")
    assert read_index(str(tmp_path / "kept")).progress["step"] == 13


HEADERS: dict[str, tuple[Callable[[Tree], Any], str]] = {
    "overlapping": (lambda h: h["C2/0|weight|3|0"].update(data_offsets=[32, 56]), "overlaps the one before it"),
    "the same bytes": (lambda h: h.update({"x": h["C1/0|weight|0|0"]}), "overlaps the one before it"),
    "a gap": (lambda h: h.pop("C2/0|weight|0|0"), "leaves a gap behind the one before it"),
    "bytes at the end": (lambda h: h.pop("C2/0|weight|3|0"), "the header says 80"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_tensors_that_overlap_or_leave_a_gap_are_refused(folder: Path, what: str) -> None:
    change, said = HEADERS[what]
    change_header(folder, TABLES, change)
    message = refusal(folder)
    assert message.startswith(f"{folder}/{TABLES}: damaged")
    assert said in message
    with pytest.raises(UserError, match=said):
        TensorFile(str(folder / TABLES))


def test_the_order_of_the_header_is_free(folder: Path) -> None:
    change_header(folder, TABLES, lambda header: [header.update({name: header.pop(name)}) for name in sorted(header, reverse=True)])
    verify_checkpoint(str(folder))


FILES: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "a tensor of another shape": ({"C2/0|weight|3|3": (1, 2), "C2/0|sum|0|0": (5,)}, "'C2/0|weight|3|3' is [1, 2], the index says [2, 1]"),
    "a tensor that is not there": ({"C2/0|sum|0|0": (7,)}, "'C2/0|weight|3|3' is not in it"),
    "a tensor of no table": ({"C2/0|weight|3|3": (2, 1), "C2/0|sum|0|0": (5,), "more": (1,)}, "'more' belongs to no table"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_of_other_tensors_than_the_index_says_is_refused(folder: Path, what: str) -> None:
    shapes, said = FILES[what]
    write_file(folder / MORE, shapes)
    enter(folder, MORE)
    message = refusal(folder)
    assert message.startswith(f"{folder}/{MORE}: damaged: ")
    assert said in message


def test_a_dense_part_that_is_no_safetensors_file_is_refused(folder: Path) -> None:
    (folder / DENSE).write_bytes(b"\0" * 40)
    enter(folder, DENSE)
    assert refusal(folder).startswith(f"{folder}/{DENSE}: damaged: not a safetensors file")


def test_neither_the_best_step_nor_more_epochs_come_after_the_checkpoint() -> None:
    kept = {"step": 13, "best_auc": 0.7, "best_step": 14, "schedule": {"plateau": 1.0, "waited": 0, "best": None}}
    assert progress_from(kept | {"best_step": 13}, "x").best_step == 13
    with pytest.raises(UserError, match=r"best_step .*14.* 13"):
        progress_from(kept, "x")
    with pytest.raises(UserError, match=r"epoch .*14.* 13"):
        progress_from(kept | {"best_step": 13, "epoch": 14}, "x")


def test_pieces_are_as_they_are_written(folder: Path) -> None:
    """The fixture's own pieces, through the file and back."""
    assert read_index(str(folder)).pieces == tuple(replace(one) for one in PIECES)
