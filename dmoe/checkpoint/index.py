"""The index of a checkpoint: what is where, with a checksum of every file and of itself. No torch."""

import hashlib
import json
import re
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.names import check_text, printable
from dmoe.paths import PATHS, join, read_bounded, write_atomic

FORMAT, VERSION, INDEX, REFUSED = "dmoe-checkpoint", 1, "index.json", "index.refused.json"
DENSE = "dense.safetensors"
MAX_BYTES = 256 << 20
MAX_BESIDE = 4096
"""Pieces side by side in a row: no table has as many columns shards, and checking more would take a hostile index's time."""
MAX_TABLE_ROWS, MAX_TABLE_COLUMNS = 1 << 40, 1 << 20
_FILE = re.compile(r"tables-\d{5}-\d{5}\.safetensors|dense\.safetensors", re.ASCII)
_STATE = re.compile(r"\w{1,64}", re.ASCII)


@dataclass(frozen=True)
class Piece:
    """A rectangle of a logical table's weight or state, and the file and key that hold it. Row-wise states have columns 0."""

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
    """What `index.json` holds.

    Attributes:
        tables: logical table -> rows, columns.
        files: name -> bytes, SHA-256.
        progress: where the run stood, as plain data.
    """

    tables: dict[str, tuple[int, int]]
    pieces: tuple[Piece, ...]
    files: dict[str, tuple[int, str]]
    progress: dict[str, Any]

    @cached_property
    def _of(self) -> dict[tuple[str, str], list[Piece]]:
        found: dict[tuple[str, str], list[Piece]] = {}
        for piece in sorted(self.pieces, key=lambda p: (p.row, p.column)):
            found.setdefault((piece.table, piece.state), []).append(piece)
        return found

    def of(self, table: str, state: str) -> list[Piece]:
        """The pieces of one table's weight or state, top to bottom."""
        return self._of.get((table, state), [])

    @property
    def states(self) -> list[str]:
        """`weight` and the optimiser's states, by name."""
        return sorted({piece.state for piece in self.pieces})


def write_index(folder: str, index: Index) -> None:
    """Publishes a checkpoint: at once, so that there is never half an index.

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
    with write_atomic(join(folder, INDEX)) as file:
        file.write(json.dumps(content).encode())


def read_index(folder: str) -> Index:
    """The index of a checkpoint, checked against its own checksum, every field of it.

    Raises:
        UserError: none there, torn, damaged, or of another version.
    """
    path = join(folder, INDEX)
    if not PATHS.exists(path):
        raise UserError(f"{folder}: no {INDEX}: not a finished checkpoint")
    try:
        content = parse_json(read_bounded(path, MAX_BYTES, "checkpoint's index"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged: not a checkpoint's index ({str(error)[:200]})") from None
    try:
        known = content["format"] == FORMAT
        version = content["version"]
        sound = known and content["checksum"] == _checksum(content)
    except (KeyError, TypeError):
        raise UserError(f"{path}: damaged: not a checkpoint's index") from None
    if not known:
        raise UserError(f"{path}: damaged: not a checkpoint's index")
    if version != VERSION:
        raise UserError(f"{path}: checkpoint version {str(version)[:20]}, this dmoe reads version {VERSION}")
    if not sound:
        raise UserError(f"{path}: damaged: its checksum does not match")
    try:
        return _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged: {str(error)[:200] or 'a field is wrong'}") from None


def verify_checkpoint(folder: str, part: int = 0, parts: int = 1) -> Index:
    """The index, once every file (every `parts`-th one from `part` on) is there and has the checksum that the index says.

    Raises:
        UserError: a file is missing, torn or changed; named.
    """
    index = read_index(folder)
    for name, (size, expected) in sorted(index.files.items())[part::parts]:
        path = join(folder, name)
        if not PATHS.exists(path):
            raise UserError(f"{path}: missing, but the checkpoint's index names it")
        digest, found = hashlib.sha256(), 0
        try:
            with PATHS.open(path, "rb") as file:
                while chunk := file.read(8 << 20):
                    digest.update(chunk)
                    found += len(chunk)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None
        if found != size:
            raise UserError(f"{path}: damaged: {found:,} bytes, the index says {size:,}")
        if digest.hexdigest() != expected:
            raise UserError(f"{path}: damaged: its checksum is not the one in the index")
    return index


def refuse(folder: str) -> None:
    """Sets a damaged checkpoint's index aside, so that it no longer counts as one; its files stay for whoever wants to look."""
    text = PATHS.open(join(folder, INDEX), "rb").read()
    with write_atomic(join(folder, REFUSED)) as file:
        file.write(text)
    PATHS.rm(join(folder, INDEX))


def _checksum(content: dict[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _parse(content: dict[str, Any]) -> Index:
    if not isinstance(content["progress"], dict):
        raise ValueError("progress is not an object")
    tables = {
        check_text(name): (_whole(rows, MAX_TABLE_ROWS), _whole(columns, MAX_TABLE_COLUMNS))
        for name, (rows, columns) in content["tables"].items()
    }
    files = {}
    for name, entry in content["files"].items():
        if not _FILE.fullmatch(name) or not re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]):
            raise ValueError(f"file '{name[:80]}' or its checksum")
        files[name] = (_whole(entry["bytes"], 1 << 48), entry["sha256"])
    pieces = tuple(_piece(row, tables, files) for row in content["pieces"])
    _check_whole(tables, pieces)
    return Index(tables, pieces, files, content["progress"])


def _check_whole(tables: dict[str, tuple[int, int]], pieces: tuple[Piece, ...]) -> None:
    """Every table's weight and states are covered once, with no gap: they fill the area and do not overlap."""
    groups: dict[tuple[str, str], list[Piece]] = {(name, "weight"): [] for name in tables}
    for piece in pieces:
        groups.setdefault((piece.table, piece.state), []).append(piece)
    for (table, state), group in groups.items():
        rows, columns = tables[table]
        one_a_row = any(piece.columns == 0 for piece in group)
        if sum(piece.rows * (piece.columns or 1) for piece in group) != rows * (1 if one_a_row else columns):
            raise ValueError(f"table '{table}': {state} is not whole")
        beside: list[Piece] = []
        for piece in sorted(group, key=lambda piece: piece.row):
            beside = [other for other in beside if other.row + other.rows > piece.row]
            if any(_share_columns(piece, other) for other in beside) or len(beside) > MAX_BESIDE:
                raise ValueError(f"table '{table}': pieces of {state} overlap")
            beside.append(piece)


def _share_columns(a: Piece, b: Piece) -> bool:
    if 0 in (a.columns, b.columns):
        return True
    return a.column < b.column + b.columns and b.column < a.column + a.columns


def _piece(row: list[Any], tables: dict[str, tuple[int, int]], files: dict[str, Any]) -> Piece:
    table, state, *place, file, key = row
    known = all(isinstance(text, str) for text in (table, state, file, key)) and table in tables and file in files
    if not known or not _STATE.fullmatch(state) or printable(key) != key:
        raise ValueError(f"piece {str(row)[:80]}")
    height, width = tables[table]
    first, column, rows, columns = (_whole(number, 1 << 40) for number in place)
    if first + rows > height or column + columns > width:
        raise ValueError(f"a piece of table '{table}' lies outside of it")
    return Piece(table, state, first, column, rows, columns, file, key)


def _whole(number: Any, limit: int) -> int:
    if type(number) is not int or not 0 <= number <= limit:
        raise ValueError(f"{str(number)[:40]} is not a whole number from 0 to {limit}")
    return number
