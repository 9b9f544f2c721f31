"""How a table is looked up: the input of TorchRec's estimators beside the size, and tables on the meta device to pass to them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn
from torchrec.distributed.planner.constants import UVM_CACHING_RATIO
from torchrec.distributed.types import CacheParams, CacheStatistics
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.optim import RowWiseAdagrad
from torchrec.types import DataType

OPTIMIZERS = {
    "adagrad": torch.optim.Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
}
NUMBER_BYTES = {"FP32": 4, "FP16": 2}
"""Bytes of a stored weight, by TorchRec's name of the data type. Optimizer state is always float32."""

LOAD_FACTOR = UVM_CACHING_RATIO
"""Cache size on the device as a share of the table's rows; TorchRec's default."""


@dataclass(frozen=True)
class Use:
    """Lookup statistics of a table, from the counts of the data set (table_use.py).

    Attributes:
        lookups, unique_ids: ids in a global batch, and the expected number of distinct ids among them.
        miss_rate: expected share of the distinct ids that are not in a cache with LOAD_FACTOR of the rows.
        hot_rows: minimum number of rows that receive half of all lookups.
    """

    lookups: float
    unique_ids: float
    miss_rate: float
    hot_rows: int


class MeasuredStatistics(CacheStatistics):
    """The lookup statistics of a table in the form that TorchRec's estimators need, for TorchRec's default load factor."""

    def __init__(self, use: Use) -> None:
        self.use = use

    @property
    def expected_lookups(self) -> float:
        return self.use.unique_ids

    def expected_miss_rate(self, clf: float) -> float:
        assert clf == LOAD_FACTOR, clf
        return self.use.miss_rate

    @property
    def cacheability(self) -> float:
        return self.use.miss_rate


@dataclass(frozen=True)
class Lookup:
    """
    Attributes:
        ids: mean number of ids per row, for each feature that uses the table.
        pooled: True for EmbeddingBagCollection (one embedding per feature), False for EmbeddingCollection (one embedding per id).
        weighted: each id has a weight.
        data_type: a key of NUMBER_BYTES.
        use: lookup statistics, if measured.
    """

    ids: tuple[float, ...] = (1.0,)
    pooled: bool = True
    weighted: bool = False
    data_type: str = "FP32"
    use: Use | None = None

    @property
    def ids_a_row(self) -> float:
        return sum(self.ids)

    @property
    def embeddings_a_row(self) -> float:
        """Number of embeddings that the table returns for one row."""
        return len(self.ids) if self.pooled else self.ids_a_row

    @property
    def number_bytes(self) -> int:
        return NUMBER_BYTES[self.data_type]

    def as_json(self) -> dict[str, Any]:
        """All fields but `use`, which a plan file stores separately."""
        return {key: value for key, value in asdict(self).items() if key != "use"} | {"ids": list(self.ids)}

    @property
    def cache_params(self) -> CacheParams | None:
        """The cache parameters that pass `use` to TorchRec's estimators."""
        return None if self.use is None else CacheParams(load_factor=LOAD_FACTOR, stats=MeasuredStatistics(self.use))


def lookup_of(row: Mapping[str, Any]) -> Lookup:
    """The Lookup of a table's entry in a plan. Tables of dmoe's own models only have a pooling factor: one feature, pooled, float32."""
    kept, use = row.get("lookup"), row.get("use")
    measured = Use(**{one.name: use[one.name] for one in fields(Use)}) if use else None
    return Lookup(**(kept | {"ids": tuple(kept["ids"])}), use=measured) if kept else Lookup((row["pooling_factor"],), use=measured)


@dataclass(frozen=True)
class MetaTable:
    name: str
    rows: int
    columns: int
    lookup: Lookup


def meta_module(tables: Sequence[MetaTable], optimizer: str) -> nn.ModuleList:
    """Collections of tables on the meta device, marked with their optimizer so that its state is counted."""
    groups: dict[tuple[bool, bool, int], list[MetaTable]] = {}
    for table in tables:
        # All tables of an EmbeddingCollection have the same embedding_dim.
        key = (table.lookup.pooled, table.lookup.weighted, 0 if table.lookup.pooled else table.columns)
        groups.setdefault(key, []).append(table)
    meta = torch.device("meta")
    module = nn.ModuleList()
    with _undrawn():
        for (pooled, weighted, _), some in groups.items():
            if pooled:
                module.append(EmbeddingBagCollection([_config(EmbeddingBagConfig, one) for one in some], is_weighted=weighted, device=meta))
            else:
                module.append(EmbeddingCollection([_config(EmbeddingConfig, one) for one in some], device=meta))
    for parameter in module.parameters():
        parameter._optimizer_classes = [OPTIMIZERS[optimizer]]  # type: ignore[attr-defined]
    return module


@contextmanager
def _undrawn() -> Iterator[None]:
    """Skips the initialization of embeddings inside the context: on the meta device it has no effect, but takes 1 ms per table."""
    kinds: tuple[Any, ...] = (nn.Embedding, nn.EmbeddingBag)
    before = [kind.reset_parameters for kind in kinds]
    for kind in kinds:
        kind.reset_parameters = lambda self: None
    try:
        yield
    finally:
        for kind, draw in zip(kinds, before, strict=True):
            kind.reset_parameters = draw


def _config(kind: type, table: MetaTable) -> Any:
    return kind(
        name=table.name,
        embedding_dim=table.columns,
        num_embeddings=table.rows,
        feature_names=[f"{table.name}_ids{number}" for number in range(len(table.lookup.ids))],
        data_type=DataType[table.lookup.data_type],
    )


def tables_of(module: nn.Module) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Table name -> (collection, weight), for a module from `meta_module`."""
    found = {}
    for collection in module.children():
        held: Any = collection.embedding_bags if isinstance(collection, EmbeddingBagCollection) else collection.embeddings
        found.update({name: (collection, one.weight) for name, one in held.items()})
    return found
