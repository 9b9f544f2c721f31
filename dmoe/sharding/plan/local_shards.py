"""The table shards in this rank's memory, for any plan. Initialization, optimizers and checkpoints access tables only through them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbeddingBag, BatchedFusedEmbeddingBag
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection

from dmoe.model.embedding.tables import Section, Table


@dataclass(frozen=True)
class LocalShard:
    """A rectangle of a physical table in this rank's memory.

    Attributes:
        table: the physical table.
        row, column: first row and column of the rectangle in the table.
        weight: [rows, columns], a view: writing to it changes the model.
        states: state of the fused optimizer, also views: [rows, columns], or [rows] if it is per row. Empty for data-parallel tables.
        parameter: the flat parameter that holds a data-parallel table, and the table's offset in it; None for sharded tables.
    """

    table: Table
    row: int
    column: int
    weight: Tensor
    states: dict[str, Tensor]
    parameter: tuple[nn.Parameter, int] | None

    @property
    def replicated(self) -> bool:
        return self.parameter is not None

    def pieces(self) -> Iterator[tuple[Section, int, slice]]:
        """The parts of the rectangle by logical table: (section, first column within the section, columns within the rectangle).

        Padding columns belong to no part.
        """
        for section in self.table.sections:
            first = max(section.offset, self.column)
            last = min(section.offset + section.dim, self.column + self.weight.shape[1])
            if first < last:
                yield section, first - section.offset, slice(first - self.column, last - self.column)


def local_shards(model: nn.Module, tables: Sequence[Table]) -> list[LocalShard]:
    """This rank's shards of all tables of a sharded model, in a fixed order.

    Cached rows are first written back and the cache is emptied, so reads return the trained weights, and the next lookup sees writes.
    Call it again after further training steps.
    """
    by_module = {table.module: table for table in tables}
    shards: list[LocalShard] = []
    for module in _kernels(model):
        if isinstance(module, BatchedFusedEmbeddingBag):
            # With fused_uvm_caching, recently used rows are on the device, but the views are of host memory.
            module.emb_module.flush()
            module.emb_module.reset_cache_states()
            weights = module.emb_module.split_embedding_weights()
            # For SGD, which has no state, FBGEMM returns nothing instead of a list of empty dicts.
            states = module.emb_module.get_optimizer_state() or [{} for _ in weights]
            for part, weight, state in zip(module.config.embedding_tables, weights, states, strict=True):
                row, column = part.local_metadata.shard_offsets
                shards.append(LocalShard(by_module[part.name], row, column, weight, _by_standard_name(dict(state)), None))
        elif isinstance(module, BatchedDenseEmbeddingBag):
            flat, start = module.emb_module.weights, 0
            for part, weight in zip(module.config.embedding_tables, module.emb_module.split_embedding_weights(), strict=True):
                shards.append(LocalShard(by_module[part.name], 0, 0, weight.detach(), {}, (flat, start)))
                start += weight.numel()
    return sorted(shards, key=lambda shard: (shard.table.name, shard.row, shard.column))


@torch.no_grad()
def copy_tables(whole: nn.Module, sharded: nn.Module, tables: Sequence[Table]) -> None:
    """Copies the tables of an unsharded EmbeddingBagCollection into this rank's shards of a sharded model with the same tables."""
    for shard in local_shards(sharded, tables):
        weight = whole.embedding_bags[shard.table.module].weight  # type: ignore[union-attr,index]
        rows, columns = shard.weight.shape
        shard.weight.copy_(weight[shard.row : shard.row + rows, shard.column : shard.column + columns])


def fused_modules(model: nn.Module) -> list[Any]:
    """FBGEMM modules that update their tables in the backward pass."""
    return [module.emb_module for module in _kernels(model) if isinstance(module, BatchedFusedEmbeddingBag)]


def _kernels(model: nn.Module) -> Iterator[Any]:
    # TorchRec keeps the lookups of a sharded collection in a plain list, so `model.modules()` does not include them.
    for module in model.modules():
        if isinstance(module, ShardedEmbeddingBagCollection):
            for lookup in module._lookups:
                yield from lookup.modules()


def _by_standard_name(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # FBGEMM calls Adagrad's state `sum` or `momentum1`, depending on the version; dmoe uses the names of torch.optim.
    renamed = {"momentum1": "sum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "sum": "sum"}
    return {renamed[name]: tensor for name, tensor in state.items() if name in renamed and isinstance(tensor, torch.Tensor)}
