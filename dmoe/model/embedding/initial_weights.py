"""Initial values of embedding rows. They depend only on seed, table and row, not on the plan."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dmoe.model.embedding.tables import Table

BLOCK_ROWS = 16384
"""Rows that one generator draws. A shard draws only the blocks that it overlaps, so its memory does not grow with the table."""


def initial_block(seed: int, logical_name: str, block: int, rows: int, dim: int, std: float) -> Tensor:
    """Rows [block * BLOCK_ROWS, ...) of a logical table: [rows, dim] float32 from a normal distribution."""
    key = hashlib.sha256(f"{seed}/{logical_name}/{block}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(key[:8], "little", signed=False) >> 1)
    return torch.empty(rows, dim, device="cpu").normal_(0, std, generator=generator)


@torch.no_grad()
def initialize_whole_tables(collection: nn.Module, tables: Sequence[Table], seed: int, std: float) -> None:
    """Initializes an unsharded EmbeddingBagCollection with the same values that `initialize_tables` draws for shards."""
    for table in tables:
        weight = collection.embedding_bags[table.module].weight  # type: ignore[union-attr,index]
        weight.zero_()
        for section in table.sections:
            columns = slice(section.offset, section.offset + section.dim)
            for start in range(0, table.rows, BLOCK_ROWS):
                rows = min(BLOCK_ROWS, table.rows - start)
                block = start // BLOCK_ROWS
                weight[start : start + rows, columns] = initial_block(seed, table.logical_name(section), block, rows, section.dim, std)
