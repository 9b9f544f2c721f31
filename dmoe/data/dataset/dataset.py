"""The Python API of a data set: `dmoe.Dataset`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.compatibility import Inputs
from dmoe.data.dataset.manifest import Manifest, Split, load_manifest
from dmoe.data.dataset.reading.reader import Reader
from dmoe.distributed import rank, world_size
from dmoe.errors import UserError, nearest


class Dataset:
    """A data set that `dmoe preprocess` made.

    Args:
        path: its folder, local or remote.

    Attributes:
        manifest: features, cardinalities, splits.

    Raises:
        UserError: no data set there, or a damaged manifest.

    Examples:
        >>> from dmoe.testing.small_data import small_data_set
        >>> data = Dataset(small_data_set())
        >>> batches = data.batches("train", batch_size=64)
        >>> next(iter(batches)).sparse.keys()
        ['C1', 'C2', 'C3', 'C4']
        >>> batches.state_dict()["row"]
        64
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.manifest: Manifest = load_manifest(path)

    @property
    def splits(self) -> Mapping[str, Split]:
        """Rows, positives and shards of each split, by name."""
        return self.manifest.splits

    def batches(
        self,
        split: str,
        batch_size: int,
        features: Sequence[str] | None = None,
        dense: Sequence[str] | None = None,
        shuffle: str = "none",
        seed: int = 0,
        prefetch: int = 2,
        ranks: tuple[int, int] | None = None,
    ) -> "Batches":
        """Batches of a split, epoch after epoch.

        Args:
            batch_size: rows of the global batch, over all ranks.
            features: categorical features, in the order of the KeyedJaggedTensor's keys. All if absent.
            dense: numeric features, in the order of the columns. All if absent.
            shuffle: `window`, `row_groups` or `none`.
            prefetch: number of batches that a thread prepares ahead.
            ranks: (rank, number of ranks). Those of the process group if absent.

        Raises:
            UserError: no such split or feature, or a shard does not agree with the manifest.
        """
        known = {one.name: one for one in self.manifest.categorical}
        for name in features or ():
            if name not in known:
                raise UserError(f"features: no feature '{name}' in {self.path}{nearest(name, known)}")
        chosen = [known[name] for name in features] if features is not None else list(self.manifest.categorical)
        numbers = [one.name for one in self.manifest.dense]
        for name in dense or ():
            if name not in numbers:
                raise UserError(f"dense: no numeric feature '{name}' in {self.path}{nearest(name, numbers)}")
        columns = list(dense) if dense is not None else numbers
        reader = Reader(self.path, self.manifest, split, chosen, columns, shuffle=shuffle, seed=seed, prefetch=prefetch)
        numeric = {one.name: one for one in self.manifest.dense}
        read = Inputs(dense=tuple(numeric[name] for name in columns), categorical=tuple(chosen), evidence=self.manifest.evidence)
        return Batches(reader, batch_size, ranks, read, self.path)


class Batches:
    """Iterates over one epoch. The next iteration is the next epoch. The position can be saved, and resumed on any number of ranks.

    Every rank gets the same number of batches with the same number of rows. If a global batch cannot be divided equally, the last rows are
    padding with weight 0.

    Attributes:
        inputs: the features of the batches, with the meaning of their ids and numbers.
        path: folder of the data set.
    """

    def __init__(self, reader: Reader, batch_size: int, ranks: tuple[int, int] | None, inputs: Inputs, path: str) -> None:
        self.reader, self.batch_size, self.inputs, self.path = reader, batch_size, inputs, path
        self.ranks = ranks or (rank(), world_size())
        self.epoch = self.row = 0

    def __len__(self) -> int:
        """Number of remaining batches of the epoch."""
        return self.reader.steps(self.batch_size, self.row)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.reader.batches(self.batch_size, *self.ranks, self.epoch, self.row):
            self.row = min(self.row + self.batch_size, self.reader.rows)
            yield batch
        self.epoch, self.row = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch: epoch, row, and a name of the order of rows."""
        return {"epoch": self.epoch, "row": self.row, "order": self.reader.order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a position.

        Raises:
            UserError: the position is of another order of rows: other shards, shuffle or seed.
        """
        if state["order"] != self.reader.order:
            raise UserError("state: the position is of other shards, or of another shuffle or seed; rows would be read twice or never")
        self.epoch, self.row = int(state["epoch"]), int(state["row"])
