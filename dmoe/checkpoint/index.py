"""The index of a checkpoint: its tables, pieces and files, with checksums of every file and of the index. Does not need torch."""

import bisect
import hashlib
import re
from dataclasses import astuple, dataclass
from typing import Any

from dmoe.checkpoint.progress import check_progress
from dmoe.checkpoint.tensors import Entry, read_entries
from dmoe.errors import UserError, one_line, reason_of, shown
from dmoe.json_text import format_json, is_int, parse_json
from dmoe.names import check_text, printable
from dmoe.storage.paths import PATHS, check_regular, inside, join, read_bounded, write_atomic

FORMAT, VERSION, INDEX, REFUSED = "dmoe-checkpoint", 1, "index.json", "index.refused.json"
DENSE = "dense.safetensors"
EMA = "ema"
"""Of a dense parameter's moving average, its name among the parameter's states."""
MAX_BYTES = 256 << 20
MAX_TABLE_ROWS, MAX_TABLE_COLUMNS = 1 << 40, 1 << 20
_FOLDER = re.compile(r"step-(\d{9,18})", re.ASCII)
_NAME = "step-{:09d}"
_FILE = re.compile(r"tables-\d{5}-\d{5}\.safetensors|dense\.safetensors", re.ASCII)
_STATE = re.compile(r"\w{1,64}", re.ASCII)
_NO_AUC, _NO_AUC_BEFORE = '"best_auc": null', '"best_auc": -Infinity'
"""How a missing AUC is written now, and how it was written by earlier versions, which is not valid JSON but is still read."""


@dataclass(frozen=True)
class Piece:
    """A rectangle of the weight or a state of a logical table, and the file and key that hold it. For row-wise states, columns is 0."""

    table: str
    state: str
    row: int
    column: int
    rows: int
    columns: int
    file: str
    key: str


@dataclass(frozen=True)
class Index:
    """The contents of `index.json`.

    Attributes:
        tables: logical table -> (rows, columns).
        files: name -> (bytes, SHA-256).
        progress: the progress of the run, as plain data.
    """

    tables: dict[str, tuple[int, int]]
    pieces: tuple[Piece, ...]
    files: dict[str, tuple[int, str]]
    progress: dict[str, Any]

    @property
    def states(self) -> list[str]:
        """`weight` and the names of the optimizer states."""
        return sorted({piece.state for piece in self.pieces})


def step_of(folder: str) -> int | None:
    """The step in the name of a checkpoint folder; None if the name has another form."""
    found = _FOLDER.fullmatch(folder.rstrip("/").rpartition("/")[2])
    return int(found[1]) if found and _NAME.format(int(found[1])) == found[0] else None


def write_index(folder: str, index: Index) -> None:
    """Writes the index atomically, which publishes the checkpoint.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "tables": {name: list(size) for name, size in index.tables.items()},
        "pieces": [list(astuple(piece)) for piece in index.pieces],
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in index.files.items()},
        "progress": index.progress,
    }
    content["checksum"] = _checksum(content)
    text = format_json(content).encode()
    with write_atomic(join(folder, INDEX)) as file:
        file.write(text)


def read_index(folder: str) -> Index:
    """Reads the index of a checkpoint, and checks its checksum, every field, and the step in the name of the folder.

    Raises:
        UserError: there is no index, or it is incomplete, damaged, of another version, or of another step than its folder.
    """
    path = inside(folder, INDEX)
    if not PATHS.exists(path):
        raise UserError(f"{folder}: no {INDEX}: not a finished checkpoint")
    try:
        text = read_bounded(path, MAX_BYTES, "checkpoint's index").decode()
        content = parse_json(text.replace(_NO_AUC_BEFORE, _NO_AUC))
    except ValueError as error:
        raise UserError(f"{path}: damaged: not a checkpoint's index ({str(error)[:200]})") from None
    try:
        known = content["format"] == FORMAT
        version = content["version"]
        sound = known and content["checksum"] == _checksum(content, _NO_AUC_BEFORE in text)
    except (KeyError, TypeError):
        raise UserError(f"{path}: damaged: not a checkpoint's index") from None
    if not known:
        raise UserError(f"{path}: damaged: not a checkpoint's index")
    if not is_int(version, VERSION):
        raise UserError(f"{path}: checkpoint version {shown(version)}, this dmoe reads version {VERSION}")
    if not sound:
        raise UserError(f"{path}: damaged: its checksum does not match")
    check_progress(content.get("progress"), f"{path}: damaged")
    try:
        index = _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged: {one_line(str(error), 200) or 'a field is wrong'}") from None
    step, named = index.progress.get("step"), step_of(folder)
    if named is not None and (type(step) is not int or step != named):
        raise UserError(f"{path}: damaged: progress.step is {shown(step)}, but the folder is that of step {named:,}")
    return index


def verify_checkpoint(folder: str, part: int = 0, parts: int = 1) -> Index:
    """Verifies the checksums and tensors of every file (of every `parts`-th file, beginning with `part`); returns the index.

    Raises:
        UserError: a file is missing, incomplete, changed, or has other tensors than the index says; names the file.
    """
    index = read_index(folder)
    pieces: dict[str, list[Piece]] = {}
    for piece in index.pieces:
        pieces.setdefault(piece.file, []).append(piece)
    for name, (size, expected) in sorted(index.files.items())[part::parts]:
        path = inside(folder, name)
        if not PATHS.exists(path):
            raise UserError(f"{path}: missing, but the checkpoint's index names it")
        digest, found = hashlib.sha256(), 0
        try:
            check_regular(path, path)
            with PATHS.open(path, "rb") as file:
                while chunk := file.read(8 << 20):
                    digest.update(chunk)
                    found += len(chunk)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
        if found != size:
            raise UserError(f"{path}: damaged: {found:,} bytes, the index says {size:,}")
        if digest.hexdigest() != expected:
            raise UserError(f"{path}: damaged: its checksum is not the one in the index")
        entries = read_entries(path)
        if name != DENSE:
            _check_tensors(path, entries, pieces[name])
    return index


def _check_tensors(path: str, entries: dict[str, Entry], pieces: list[Piece]) -> None:
    """Checks that the tensors of a file are exactly the pieces of the index."""
    for piece in pieces:
        shape = (piece.rows, piece.columns) if piece.columns else (piece.rows,)
        if piece.key not in entries or entries[piece.key].shape != shape:
            found = list(entries[piece.key].shape) if piece.key in entries else "not in it"
            raise UserError(f"{path}: damaged: tensor '{piece.key[:80]}' is {found}, the index says {list(shape)}")
    if extra := sorted(set(entries) - {piece.key for piece in pieces}):
        raise UserError(f"{path}: damaged: tensor '{extra[0][:80]}' belongs to no table of the index")


def refuse(folder: str) -> None:
    """Renames the index of a damaged checkpoint, so that it no longer counts as a checkpoint. Its files stay."""
    with PATHS.open(join(folder, INDEX), "rb") as file:
        text = file.read()
    with write_atomic(join(folder, REFUSED)) as file:
        file.write(text)
    PATHS.rm(join(folder, INDEX))


def _checksum(content: dict[str, Any], before: bool = False) -> str:
    text = format_json({key: value for key, value in content.items() if key != "checksum"}, sort_keys=True)
    return hashlib.sha256((text.replace(_NO_AUC, _NO_AUC_BEFORE) if before else text).encode()).hexdigest()


def _parse(content: dict[str, Any]) -> Index:
    tables = {
        check_text(name): (_whole(rows, MAX_TABLE_ROWS), _whole(columns, MAX_TABLE_COLUMNS))
        for name, (rows, columns) in content["tables"].items()
    }
    files = {}
    for name, entry in content["files"].items():
        if not _FILE.fullmatch(name) or not re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]):
            raise ValueError(f"file '{one_line(name)}' or its checksum")
        files[name] = (_whole(entry["bytes"], 1 << 48), entry["sha256"])
    pieces = tuple(_piece(row, tables, files) for row in content["pieces"])
    _check_whole(tables, pieces)
    _check_files(files, pieces)
    return Index(tables, pieces, files, content["progress"])


def _check_whole(tables: dict[str, tuple[int, int]], pieces: tuple[Piece, ...]) -> None:
    """Checks that the pieces cover every table's weight and states exactly once, without gap or overlap."""
    groups: dict[tuple[str, str], list[Piece]] = {(name, "weight"): [] for name in tables}
    for piece in pieces:
        groups.setdefault((piece.table, piece.state), []).append(piece)
    for (table, state), group in groups.items():
        rows, columns = tables[table]
        one_a_row = any(piece.columns == 0 for piece in group)
        if one_a_row and state == "weight":
            raise ValueError(f"table '{table}': a piece of weight has no columns")
        if sum(piece.rows * (piece.columns or 1) for piece in group) != rows * (1 if one_a_row else columns):
            raise ValueError(f"table '{one_line(table)}': {one_line(state)} is not whole")
        if any((piece.columns == 0) != one_a_row for piece in group):
            raise ValueError(f"table '{table}': some pieces of {state} have columns and some have none")
        if not _apart(group):
            raise ValueError(f"table '{table}': pieces of {state} overlap")


def _check_files(files: dict[str, Any], pieces: tuple[Piece, ...]) -> None:
    """Checks that every piece is a different tensor, that the dense file exists, and that every other file holds a piece."""
    seen: set[tuple[str, str]] = set()
    for piece in pieces:
        if (piece.file, piece.key) in seen:
            raise ValueError(f"two pieces are one tensor, '{piece.key[:80]}' of {piece.file}")
        seen.add((piece.file, piece.key))
    used = {piece.file for piece in pieces}
    if DENSE not in files or DENSE in used:
        raise ValueError(f"{DENSE} is not among its files" if DENSE not in files else f"a piece of a table lies in {DENSE}")
    if idle := sorted(set(files) - used - {DENSE}):
        raise ValueError(f"file '{idle[0]}' holds no piece of a table")


def _apart(group: list[Piece]) -> bool:
    """Whether no two pieces overlap. A sweep over the rows, which keeps the column ranges of the current pieces sorted."""
    begins = [(piece.row, 1, piece) for piece in group if piece.rows]
    ends = [(piece.row + piece.rows, 0, piece) for piece in group if piece.rows]
    cut: list[tuple[int, int]] = []
    for _, begin, piece in sorted(begins + ends, key=lambda event: event[:2]):
        columns = (piece.column, piece.column + piece.columns) if piece.columns else (0, 1)
        at = bisect.bisect_left(cut, columns)
        if not begin:
            del cut[at]
            continue
        if (at and cut[at - 1][1] > columns[0]) or (at < len(cut) and cut[at][0] < columns[1]):
            return False
        cut.insert(at, columns)
    return True


def _piece(row: list[Any], tables: dict[str, tuple[int, int]], files: dict[str, Any]) -> Piece:
    table, state, *place, file, key = row
    known = all(isinstance(text, str) for text in (table, state, file, key)) and table in tables and file in files
    if not known or not _STATE.fullmatch(state) or printable(key) != key:
        raise ValueError(f"piece {shown(row)}")
    height, width = tables[table]
    first, column, rows, columns = (_whole(number, 1 << 40) for number in place)
    if first + rows > height or column + columns > width:
        raise ValueError(f"a piece of table '{table}' lies outside of it")
    return Piece(table, state, first, column, rows, columns, file, key)


def _whole(number: Any, limit: int) -> int:
    if type(number) is not int or not 0 <= number <= limit:
        raise ValueError(f"{shown(number)} is not a whole number from 0 to {limit}")
    return number
