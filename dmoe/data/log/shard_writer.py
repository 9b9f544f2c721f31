"""The shards of a range, a split each, written row group by row group, so that no more than a few groups are held.

Shapes: N rows of a part.
"""

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import MISSING_ID, RARE_ID
from dmoe.data.parquet import require_finite_columns, sha256_of, writer_options
from dmoe.paths import write_atomic


@njit(nogil=True, cache=True)
def _fill_places(split_N: NDArray[np.uint8], begin_S: NDArray[np.int64], place_N: NDArray[np.int64], order_N: NDArray[np.int64]) -> None:
    for i in range(len(split_N)):
        place = begin_S[split_N[i]]
        place_N[i], order_N[place] = place, i
        begin_S[split_N[i]] += 1


@njit(nogil=True, cache=True)
def _place_ids(
    codes_N: NDArray[np.int32], id_of: NDArray[np.int32], place_N: NDArray[np.int64], id_N: NDArray[np.int32], counted: NDArray[np.int64]
) -> None:
    missing, rare = 0, 0
    for i in range(len(codes_N)):
        one = id_of[codes_N[i]]
        id_N[place_N[i]] = one
        missing += one == MISSING_ID
        rare += one == RARE_ID
    counted[0] += missing
    counted[1] += rare
    counted[2] += len(codes_N)


class BySplit:
    """The rows in another order: those of split 0 first, as they come, then those of split 1 ...

    Attributes:
        edges: split s's are at edges[s] .. edges[s + 1] - 1 of that order.
        order_N: which row stands at each place.
    """

    def __init__(self, split_N: NDArray[np.uint8], splits: int) -> None:
        sizes = np.bincount(split_N, minlength=splits)
        self.edges = [0, *np.cumsum(sizes).tolist()]
        self._place_N, self.order_N = np.empty(len(split_N), np.int64), np.empty(len(split_N), np.int64)
        _fill_places(split_N, np.array(self.edges[:-1], np.int64), self._place_N, self.order_N)

    def placed(self, column_N: NDArray[Any]) -> NDArray[Any]:
        """A column in that order."""
        return column_N[self.order_N]

    def ids(self, codes_N: NDArray[np.int32], id_of: NDArray[np.int32], counted: NDArray[np.int64]) -> NDArray[np.int32]:
        """The ids of codes in that order; adds to `counted` how many are MISSING_ID, RARE_ID, and all."""
        id_N = np.empty(len(codes_N), np.int32)
        _place_ids(codes_N, id_of, self._place_N, id_N, counted)
        return id_N


class ShardWriter:
    """A shard that rows are added to."""

    def __init__(self, path: str, row_group_rows: int, many: Collection[str]) -> None:
        """
        Args:
            many: the columns that are byte-stream-split.
        """
        self.path, self.rows, self.positives = path, 0, 0
        self._row_group_rows, self._many = row_group_rows, many
        self._held: list[pa.Table] = []
        self._held_rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._file = ExitStack()

    def add(self, columns: dict[str, Any], positives: int) -> None:
        """Adds rows, `positives` of which are clicks.

        Raises:
            UserError: a number is not finite.
        """
        table = pa.table(columns)
        self._held.append(table)
        self._held_rows += len(table)
        self.rows += len(table)
        self.positives += positives
        if self._held_rows >= self._row_group_rows:
            self._write(self._held_rows // self._row_group_rows * self._row_group_rows)

    def _write(self, rows: int) -> None:
        """Writes so many of the rows held."""
        table = pa.concat_tables(self._held).combine_chunks()
        if self._writer is None:
            file = self._file.enter_context(write_atomic(self.path, sync=False))
            self._writer = pq.ParquetWriter(file, table.schema, **writer_options(table.schema, self._many))
        require_finite_columns(self.path, table.slice(0, rows), self.rows - len(table))
        self._writer.write_table(table.slice(0, rows), row_group_size=self._row_group_rows)
        self._held, self._held_rows = [table.slice(rows)], len(table) - rows

    def close(self) -> str:
        """Puts the shard, which has rows, in its place; returns its sha256."""
        if self._held_rows:
            self._write(self._held_rows)
        assert self._writer
        self._writer.close()
        self._file.close()
        return sha256_of(self.path)
