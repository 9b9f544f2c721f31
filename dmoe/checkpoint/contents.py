"""Reads a checkpoint by logical name, whatever pieces and files hold it, a block of rows at a time. Does not need torch."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dmoe.checkpoint.index import DENSE, MAX_TABLE_COLUMNS, Piece, read_index
from dmoe.checkpoint.tensors import TensorFile
from dmoe.errors import UserError
from dmoe.names import natural_key
from dmoe.storage.paths import inside, join

BLOCK_BYTES = 64 << 20


class Contents:
    """The tensors of a checkpoint by logical name, joined from their pieces.

    Tables are named `C7/0` and `C7/0:sum` (a state); tensors of the dense part as in its file, `model/...` and `optimizer/...`.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self.index = folder, read_index(folder)
        self._files: dict[str, TensorFile] = {}
        self.pieces: dict[str, list[Piece]] = {}
        for piece in self.index.pieces:
            self.pieces.setdefault(name_of(piece.table, piece.state), []).append(piece)
        self.dense = self.file(DENSE).entries

    def file(self, name: str) -> TensorFile:
        if name not in self._files:
            self._files[name] = TensorFile(inside(self.folder, name))
        return self._files[name]

    def names(self, states: bool = True) -> list[str]:
        """Tables first, then the dense part."""
        tables = sorted(self.pieces, key=lambda name: (natural_key(name), name))
        names = tables + list(self.dense)
        return names if states else [name for name in names if not self._is_state(name)]

    def _is_state(self, name: str) -> bool:
        return self.pieces[name][0].state != "weight" if name in self.pieces else name.startswith("optimizer/")

    def dims(self, name: str) -> int:
        """Number of dimensions of a table's weight or state; 0 if it is not in the checkpoint."""
        return len(self.shape(name)) if name in self.pieces else 0

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.pieces:
            return self.dense[name].shape
        rows, columns = self.index.tables[self.pieces[name][0].table]
        return (rows, columns) if self.pieces[name][0].columns else (rows,)

    def dtype(self, name: str) -> np.dtype[Any]:
        return self.rows(name, 0, 1).dtype

    def parts(
        self, name: str, low: int, high: int, left: int = 0, right: int = MAX_TABLE_COLUMNS
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yields the parts of rows [low, high) and columns [left, right) of a table, one for each piece that holds some of them; nothing
        if the name is not in the checkpoint.

        Yields:
            The place of the part in this rectangle, and its numbers, a view of the file.

        Raises:
            UserError: a file lacks a tensor, or the tensor has another shape than the index says.
        """
        for piece in self.pieces.get(name, ()):
            first, last = max(low, piece.row), min(high, piece.row + piece.rows)
            if first >= last:
                continue
            file, shape = self.file(piece.file), (piece.rows, piece.columns) if piece.columns else (piece.rows,)
            part = file.rows(piece.key, first - piece.row, last - piece.row)
            if file.entries[piece.key].shape != shape:
                raise UserError(f"{join(self.folder, piece.file)}: tensor '{piece.key}' has another shape than the index says")
            place = slice(first - low, last - low)
            if not piece.columns:
                yield (place,), part
            elif (start := max(left, piece.column)) < (end := min(right, piece.column + piece.columns)):
                yield (place, slice(start - left, end - left)), part[:, start - piece.column : end - piece.column]

    def rows(self, name: str, low: int, high: int) -> np.ndarray:
        """Rows [low, high) of a table; all of a dense tensor."""
        if name not in self.pieces:
            return self.file(DENSE).rows(name)
        shape, out = self.shape(name), None
        for place, part in self.parts(name, low, high):
            if out is None:
                out = np.empty((min(high, shape[0]) - low, *shape[1:]), part.dtype)
            elif out.dtype != part.dtype:
                raise UserError(f"{self.folder}: table '{name}' is stored in two dtypes")
            out[place] = part
        assert out is not None, "an index whose tables are whole has a piece for every row"
        return out

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """A tensor in blocks of rows."""
        if name not in self.pieces:
            yield self.rows(name, 0, 0)
            return
        shape = self.shape(name)
        step = max(BLOCK_BYTES // (int(np.prod(shape[1:])) * 8), 1)
        for low in range(0, shape[0], step):
            yield self.rows(name, low, min(low + step, shape[0]))


def name_of(table: str, state: str) -> str:
    """The name of a table's weight or state, such as `C7/0:sum`."""
    return table if state == "weight" else f"{table}:{state}"
