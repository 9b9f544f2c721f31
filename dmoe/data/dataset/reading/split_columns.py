"""Reads the row groups of a split as columns in memory, and checks them against the manifest.

Shapes: N rows of a row group.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dmoe.data.dataset.files import RowGroup, as_parquet, identity_of, open_bytes, other_bytes, sha256_of
from dmoe.data.dataset.manifest import GROUP, WEIGHT, CategoricalFeature, Manifest
from dmoe.data.dataset.reading import bags
from dmoe.data.dataset.reading.bags import Bags
from dmoe.errors import UserError, first_line
from dmoe.names import LABEL
from dmoe.storage.paths import join

OPEN_FILES = 64

Columns = dict[str, Any]
"""For each column its numbers [N], or its Bags if it is multi-valued."""


class SplitColumns:
    """Reads the row groups of a split: label, dense and categorical features, and weight and group if the manifest has them.

    The rows of a shard are used only if its file is still the one that was opened first (`identity_of`), or has the SHA-256 of the
    manifest.

    Args:
        folder: of the data set.
        features: the categorical features to read.
        dense: the dense features to read.

    Attributes:
        groups: the row groups in the order of the files.
        names: the columns that are read.

    Raises:
        UserError: a shard is missing, or has other columns, types or rows than the manifest says.
    """

    def __init__(self, folder: str, manifest: Manifest, split: str, features: Sequence[CategoricalFeature], dense: Sequence[str]) -> None:
        self.folder, self.shards = folder, manifest.split(split).shards
        self.features, self.dense = list(features), list(dense)
        self.extra = [name for name, given in ((WEIGHT, manifest.weight), (GROUP, manifest.group)) if given]
        self.names = [LABEL, *self.dense, *(feature.name for feature in self.features), *self.extra]
        self._files: OrderedDict[int, tuple[BinaryIO, pq.ParquetFile]] = OrderedDict()
        self._identities: dict[int, tuple[int, ...] | str] = {}
        self.groups = [group for index in range(len(self.shards)) for group in self._row_groups(index)]

    def none(self) -> Columns:
        """No rows."""
        multi_valued = {feature.name for feature in self.features if feature.multi_valued}
        return {name: bags.empty() if name in multi_valued else np.empty(0, np.int32) for name in self.names}

    def read(self, group: RowGroup) -> Columns:
        """Reads a row group.

        Raises:
            UserError: it cannot be read, or a value is absent or not allowed by the manifest; names column, row and file.
        """
        path = self.shards[group.shard].path
        source, file = self._file(group.shard)
        self._verify(group.shard, source)
        try:
            table = file.read_row_group(group.group, columns=self.names, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{join(self.folder, path)}: cannot be read ({first_line(error)}); make the data set again") from None
        columns = {name: _column(name, table.column(name), path, group) for name in self.names}
        _check(columns[LABEL] > 1, LABEL, columns[LABEL], "expected 0 or 1", path, group)
        for name in self.dense:
            _check(~np.isfinite(columns[name]), name, columns[name], "expected a finite number", path, group)
        if WEIGHT in columns:
            wrong_N = ~(np.isfinite(columns[WEIGHT]) & (columns[WEIGHT] > 0))
            _check(wrong_N, WEIGHT, columns[WEIGHT], "expected a finite number above 0", path, group)
        for feature in self.features:
            _check_ids(feature, columns[feature.name], path, group)
        return columns

    def _row_groups(self, shard: int) -> Iterator[RowGroup]:
        """The row groups of a shard. `first` counts from the first row of the shard, as messages do."""
        path = join(self.folder, self.shards[shard].path)
        source, file = self._file(shard)
        self._identities[shard] = identity_of(source)
        self._check_types(path, file.schema_arrow)
        first = 0
        for index in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(index).num_rows
            yield RowGroup(shard, index, first, rows)
            first += rows
        if first != self.shards[shard].rows:
            raise UserError(f"{path}: has {first:,} rows, the manifest says {self.shards[shard].rows:,}; make the data set again")

    def _check_types(self, path: str, schema: pa.Schema) -> None:
        names = schema.names
        types, times = dict(zip(names, schema.types, strict=True)), Counter(names)
        expected = {LABEL: pa.uint8()} | dict.fromkeys(self.dense, pa.float32())
        expected |= {feature.name: pa.list_(pa.int32()) if feature.multi_valued else pa.int32() for feature in self.features}
        expected |= {name: dtype for name, dtype in ((WEIGHT, pa.float32()), (GROUP, pa.int64())) if name in self.extra}
        for name, dtype in expected.items():
            if name not in types:
                raise UserError(f"{path}: no column '{name}', which the manifest names; make the data set again")
            if times[name] > 1:
                raise UserError(f"{path}: two columns '{name}'; make the data set again")
            found = pa.list_(types[name].value_type) if pa.types.is_list(types[name]) else types[name]
            if found != dtype:
                raise UserError(f"{path}: column '{name}' is {str(types[name])[:80]}, expected {dtype}; make the data set again")

    def _file(self, shard: int) -> tuple[BinaryIO, pq.ParquetFile]:
        if shard not in self._files:
            path = join(self.folder, self.shards[shard].path)
            source = open_bytes(path)
            self._files[shard] = source, as_parquet(source, path)
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1][1].close(force=True)
        return self._files[shard]

    def _verify(self, shard: int, source: BinaryIO) -> None:
        """Checks that a shard is unchanged since it was first opened.

        Raises:
            UserError: the shard was replaced or overwritten, and its bytes are not those of the manifest.
        """
        now = identity_of(source)
        if now != self._identities[shard]:
            if sha256_of(source) != self.shards[shard].sha256:
                raise other_bytes(join(self.folder, self.shards[shard].path))
            self._identities[shard] = now


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, in order."""
    first = parts[0].items()
    return {
        name: (bags.concatenate if isinstance(column, Bags) else np.concatenate)([part[name] for part in parts]) for name, column in first
    }


def _column(name: str, column: pa.ChunkedArray, path: str, group: RowGroup) -> Any:
    """The numbers or Bags of a column, which must have no nulls."""
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise UserError(
            f"{name}: no value at row {group.first + row:,} of {path}; a shard must not have empty values, make the data set again"
        )
    if not pa.types.is_list(column.type):
        return column.to_numpy()
    if pc.list_flatten(column).null_count:
        raise UserError(f"{name}: an id without a value in {path}; a shard must not have empty values, make the data set again")
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return Bags(array.flatten().to_numpy(), offsets - offsets[0])


def _check(bad_N: np.ndarray, name: str, values_N: np.ndarray, expected: str, path: str, group: RowGroup) -> None:
    if bad_N.any():
        row = int(np.flatnonzero(bad_N)[0])
        raise UserError(f"{name}: {values_N[row]} at row {group.first + row:,} of {path}, {expected}; make the data set again")


def _check_ids(feature: CategoricalFeature, column: Any, path: str, group: RowGroup) -> None:
    ids = column.values if isinstance(column, Bags) else column
    # The kernels would look up row 0 instead, and only log the number of the table (torchrec issue 575).
    if ids.size and (ids.min() < 0 or ids.max() >= feature.cardinality):
        place = int(np.flatnonzero((ids < 0) | (ids >= feature.cardinality))[0])
        row = int(np.searchsorted(column.offsets, place, side="right")) - 1 if isinstance(column, Bags) else place
        raise UserError(
            f"{feature.name}: id {ids[place]} at row {group.first + row:,} of {path},"
            f" but the manifest has {feature.cardinality:,} ids (0..{feature.cardinality - 1})"
        )
