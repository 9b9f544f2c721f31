"""How a table is looked up: what TorchRec's estimators ask for beside its size, and tables without memory to ask them about."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
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
"""Of a stored weight, by TorchRec's name of the type. Optimiser state is float32 whatever the weights are."""


@dataclass(frozen=True)
class Lookup:
    """
    Attributes:
        ids: ids a row, on average, of each feature that reads the table.
        pooled: an EmbeddingBagCollection's table, which gives an embedding a feature; else an EmbeddingCollection's, which gives one an id.
        weighted: each id comes with a weight.
        data_type: a key of NUMBER_BYTES.
    """

    ids: tuple[float, ...] = (1.0,)
    pooled: bool = True
    weighted: bool = False
    data_type: str = "FP32"

    @property
    def ids_a_row(self) -> float:
        return sum(self.ids)

    @property
    def embeddings_a_row(self) -> float:
        """What leaves the table for one row."""
        return len(self.ids) if self.pooled else self.ids_a_row

    @property
    def number_bytes(self) -> int:
        return NUMBER_BYTES[self.data_type]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ids": list(self.ids)}


def lookup_of(row: Mapping[str, Any]) -> Lookup:
    """Of a table's entry in a plan. Tables of dmoe's own models have no more than a pooling factor: one feature, sums, float32."""
    kept = row.get("lookup")
    return Lookup(**(kept | {"ids": tuple(kept["ids"])})) if kept else Lookup((row["pooling_factor"],))


@dataclass(frozen=True)
class MetaTable:
    name: str
    rows: int
    columns: int
    lookup: Lookup


def meta_module(tables: Sequence[MetaTable], optimizer: str) -> nn.ModuleList:
    """Collections of tables on the meta device, marked with their optimiser so that its state is counted."""
    groups: dict[tuple[bool, bool, int], list[MetaTable]] = {}
    for table in tables:
        # All tables of an EmbeddingCollection have one dim.
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
    """Inside, embeddings draw no initial weights: on the meta device that changes nothing and takes a millisecond a table."""
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
    """Table -> its collection and weights, of what `meta_module` made."""
    found = {}
    for collection in module.children():
        held: Any = collection.embedding_bags if isinstance(collection, EmbeddingBagCollection) else collection.embeddings
        found.update({name: (collection, one.weight) for name, one in held.items()})
    return found
