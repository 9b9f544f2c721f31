"""Checks the rows of a block, and keeps the reason for each malformed one.

Shapes: N rows of a block.
"""

from collections.abc import Collection
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.rejects import Reject, shown
from dmoe.names import printable

OTHER_LABELS = frozenset(("true", "false", "yes", "no", "t", "f", "y", "n", "-1"))
LABEL_HINT = "; name the value that means 1 in the schema, label: {column: ..., positive: ...}"


class Block(Protocol):
    """N rows of a log. For the methods see TextBlock.

    Attributes:
        line: [N] 1-based number of each row's line, or of the row in a parquet file.
        lines: number of lines of the block.
        booleans: boolean columns, whose values are given as "1" and "0".
    """

    line: NDArray[np.int64]
    lines: int
    booleans: frozenset[str]

    @property
    def rejects(self) -> list[Reject]: ...
    def raw(self, row: int) -> bytes: ...
    def value(self, name: str, row: int) -> str | None: ...
    def tokens(self, name: str) -> pa.DictionaryArray: ...
    def numbers(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]: ...
    def missing(self, name: str) -> NDArray[np.bool_]: ...
    def bags(self, name: str, separator: str | None, most: int | None) -> tuple[pa.Array, int]: ...
    def timestamps(self, name: str) -> pa.Array | None: ...


class CheckedRows:
    """Which rows of a block are well-formed, and the first reason why each other row is not.

    Args:
        optional: keys of the schema whose values may be unreadable without making the row malformed.

    Attributes:
        ok_N: whether each row is well-formed so far.
        why: row -> (kind, reason) of a malformed row.
        unread: for each key of `optional`, the rows whose value is unreadable [N].
    """

    def __init__(self, block: Block, optional: Collection[str]) -> None:
        self.block = block
        self.ok_N = np.ones(len(block.line), bool)
        self.why: dict[int, tuple[str, str]] = {}
        self.optional = optional
        self.unread: dict[str, NDArray[np.bool_]] = {}

    def refuse(self, bad_N: NDArray[np.bool_], kind: str, name: str, expected: str) -> None:
        if kind in self.optional:
            self.unread[kind] = bad_N
            return
        for row in np.flatnonzero(bad_N & self.ok_N).tolist():
            value = self.block.value(name, row)
            found = "empty" if value in (None, "") else shown(str(value))
            hint = LABEL_HINT if kind == "label" and str(value).casefold() in OTHER_LABELS else ""
            self.why[row] = kind, f"{printable(name)} is {found}, expected {expected}{hint}"
        self.ok_N &= ~bad_N


def codes_of(coded: pa.DictionaryArray) -> NDArray[np.int32]:
    """The code of each row; len(dictionary) if the value is missing."""
    return np.asarray(pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy())
