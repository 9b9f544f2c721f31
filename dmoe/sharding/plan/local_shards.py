"""What a rank really holds of the tables, whatever the plan: the one way to initial weights, optimizers and checkpoints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbeddingBag, BatchedFusedEmbeddingBag
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection

from dmoe.model.tables import Section, Table


@dataclass(frozen=True)
class LocalShard:
    """A rectangle of a physical table in this rank's memory.

    Attributes:
        table: the physical table.
        row, column: where the rectangle begins in it.
        weight: [rows, columns], a view: writing to it writes the model.
        states: the fused optimizer's, views too: [rows, columns] or, where it keeps one a row, [rows]. Empty for data-parallel ones.
        parameter: the flat parameter that holds a data-parallel table, and where in it; None for sharded tables.
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
        """What the rectangle holds of each logical table: section, first of the section's columns, the rectangle's columns.

        Padding columns belong to none.
        """
        for section in self.table.sections:
            first = max(section.offset, self.column)
            last = min(section.offset + section.dim, self.column + self.weight.shape[1])
            if first < last:
                yield section, first - section.offset, slice(first - self.column, last - self.column)


def local_shards(model: nn.Module, tables: Sequence[Table]) -> list[LocalShard]:
    """This rank's shards of all tables of a sharded model, in a fixed order.

    A cache's rows are written back first, and the cache is emptied: what is read through the shards is what training has, and what is
    written through them is what the next lookup finds. After further steps, ask anew.
    """
    by_module = {table.module: table for table in tables}
    shards: list[LocalShard] = []
    for module in _kernels(model):
        if isinstance(module, BatchedFusedEmbeddingBag):
            # Under fused_uvm_caching the rows that training looked up last are on the device, and the views are of the host's memory.
            module.emb_module.flush()
            module.emb_module.reset_cache_states()
            weights = module.emb_module.split_embedding_weights()
            # SGD has no state, and FBGEMM then gives no list of empty ones.
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
    """Copies the tables of an unsharded EmbeddingBagCollection into this rank's shards of a sharded model of the same tables."""
    for shard in local_shards(sharded, tables):
        weight = whole.embedding_bags[shard.table.module].weight  # type: ignore[union-attr,index]
        rows, columns = shard.weight.shape
        shard.weight.copy_(weight[shard.row : shard.row + rows, shard.column : shard.column + columns])


def fused_modules(model: nn.Module) -> list[Any]:
    """FBGEMM's modules whose backward pass steps their tables."""
    return [module.emb_module for module in _kernels(model) if isinstance(module, BatchedFusedEmbeddingBag)]


def _kernels(model: nn.Module) -> Iterator[Any]:
    # TorchRec keeps a sharded collection's lookups in a plain list, which `modules()` of the whole does not enter.
    for module in model.modules():
        if isinstance(module, ShardedEmbeddingBagCollection):
            for lookup in module._lookups:
                yield from lookup.modules()


def _by_standard_name(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # FBGEMM names Adagrad's state `sum` or `momentum1` from version to version; ours are torch.optim's names.
    renamed = {"momentum1": "sum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "sum": "sum"}
    return {renamed[name]: tensor for name, tensor in state.items() if name in renamed and isinstance(tensor, torch.Tensor)}
