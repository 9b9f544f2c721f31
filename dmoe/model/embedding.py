"""The multi-embedding: every feature looked up once for every expert's table set.

Shapes: B rows, F features, S table sets, K dims of a set's embeddings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from dmoe.model.tables import Table, bag_configs


class MultiEmbedding(nn.Module):
    """S table sets over F features (Multi-Embedding, Guo et al. 2023), as one EmbeddingBagCollection that TorchRec shards.

    Args:
        tables: from `make_tables`, all of one layout.
        device: `meta` before sharding: no table is ever whole in memory.

    Shape:
        - Input: KeyedJaggedTensor with one key a feature.
        - Output: S tensors [B, F, K] of float.
    """

    def __init__(self, tables: Sequence[Table], device: torch.device | None = None) -> None:
        super().__init__()
        self.ebc = EmbeddingBagCollection(tables=bag_configs(tables), device=device)
        self.split = SplitSets(tables)

    def forward(self, ids: KeyedJaggedTensor) -> list[Tensor]:
        return self.split(self.ebc(ids), ids)


class SplitSets(nn.Module):
    """Cuts what the lookup returns into one tensor a table set, whatever order a plan returned the tables in, and makes means of sums.

    TorchRec's own mean pooling lets the plan change the mathematics: row-wise shards of tables that share a feature, and grid shards,
    gave other means than one rank did (torchrec 1.8.0, seen by tests/distributed/test_log.py: losses 1 % off), and every row-wise
    divisor gets 1e-6 added.

    A leaf for TorchRec's pipeline, which traces the modules above the lookup and could not trace this one's loop.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        super().__init__()
        self.wide = len(tables[0].sections) > 1 or len({table.feature for table in tables}) == len(tables)
        shared = len({table.feature for table in tables}) < len(tables)
        self.keys = [f"{table.feature}@{table.module}" if shared else table.feature for table in tables]
        self.sections = (
            tables[0].sections if self.wide else tuple(table.sections[0] for table in tables if table.feature == tables[0].feature)
        )
        sets = len(self.sections)
        self.mean_F = [table.pooling == "mean" for table in (tables if self.wide else tables[::sets])]
        self.groups = [self.keys] if self.wide else [self.keys[index::sets] for index in range(sets)]
        # One split over all columns, padding and all: its gradient is one copy, where every slice's would be zeros as wide as the rows.
        self.widths = [width for s in self.sections for width in (s.dim, s.stored - s.dim)]

    def forward(self, looked_up: KeyedTensor, ids: KeyedJaggedTensor) -> list[Tensor]:
        sets_BFK = self._cut(looked_up)
        if not any(self.mean_F):
            return sets_BFK
        lengths_BF = ids.lengths().view(len(self.mean_F), -1).T.to(sets_BFK[0].dtype)
        mean_F = torch.tensor(self.mean_F, device="cpu").to(lengths_BF.device, non_blocking=True)
        # Padding has empty bags, whose sum is 0.
        divisor_BF1 = torch.where(mean_F, lengths_BF.clamp(min=1), 1).unsqueeze(2)
        return [x_BFK / divisor_BF1 for x_BFK in sets_BFK]

    def _cut(self, looked_up: KeyedTensor) -> list[Tensor]:
        in_order = self.wide and looked_up.keys() == self.keys
        grouped = [looked_up.values()] if in_order else KeyedTensor.regroup([looked_up], self.groups)
        if not self.wide:
            stored = [x.unflatten(1, (-1, s.stored)) for x, s in zip(grouped, self.sections, strict=True)]
            return [x if s.dim == s.stored else x[:, :, : s.dim] for x, s in zip(stored, self.sections, strict=True)]
        rows_BFC = grouped[0].unflatten(1, (len(self.keys), -1))
        return list(rows_BFC.split(self.widths, dim=2))[::2]
