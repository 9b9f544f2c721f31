"""The multi-embedding: every feature looked up once for every expert's table set.

Shapes: B rows, F features, S table sets, K dims of a set's embeddings.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from dmoe.model.tables import SHARED, Section, Table, bag_configs


class MultiEmbedding(nn.Module):
    """S table sets over F features (Multi-Embedding, Guo et al. 2023), as one EmbeddingBagCollection that TorchRec shards.

    A light one (`make_tables(..., private_ids)`) looks up what `PrivateIds` makes of a batch's ids, a hashed one what `HashedIds` does.

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
        hashed = tables[0].readers
        shared = [] if hashed else [table for table in tables if table.sections[0].set_index == SHARED]
        sets = [table for table in tables if table not in shared]
        count = Counter(key for table in tables for key in table.keys)
        names = [[f"{key}@{table.module}" if count[key] > 1 else key for key in table.keys] for table in tables]
        self.keys = [name for one in names for name in one]
        self.wide = not hashed and (len(sets[0].sections) > 1 or len({table.feature for table in sets}) == len(sets))
        if self.wide:
            self.sections = sets[0].sections
        elif hashed:
            self.sections = sets[0].sections * hashed
        else:
            self.sections = tuple(table.sections[0] for table in sets if table.feature == sets[0].feature)
        step = 1 if self.wide else len(self.sections)
        self.mean_F = [table.pooling == "mean" for table in (sets if hashed else sets[::step])]
        of_sets = self.keys[len(shared) :]
        self.groups = [of_sets[index::step] for index in range(step)]
        self.shared = shared[0].sections[0] if shared else None
        if shared:
            self.groups.append(self.keys[: len(shared)])
        # One split over all columns, padding and all: its gradient is one copy, where every slice's would be zeros as wide as the rows.
        self.widths = [width for s in self.sections for width in (s.dim, s.stored - s.dim)]

    def forward(self, looked_up: KeyedTensor, ids: KeyedJaggedTensor) -> list[Tensor]:
        sets_BFK = self._cut(looked_up)
        if not any(self.mean_F):
            return sets_BFK
        # A light multi-embedding's private ids come after all of a row's; hashes leave every expert as many.
        lengths_BF = ids.lengths().view(-1, len(sets_BFK[0]))[: len(self.mean_F)].T.to(sets_BFK[0].dtype)
        mean_F = torch.tensor(self.mean_F, device="cpu").to(lengths_BF.device, non_blocking=True)
        # Padding has empty bags, whose sum is 0.
        divisor_BF1 = torch.where(mean_F, lengths_BF.clamp(min=1), 1).unsqueeze(2)
        return [x_BFK / divisor_BF1 for x_BFK in sets_BFK]

    def _cut(self, looked_up: KeyedTensor) -> list[Tensor]:
        in_order = len(self.groups) == 1 and looked_up.keys() == self.keys
        grouped = [looked_up.values()] if in_order else KeyedTensor.regroup([looked_up], self.groups)
        if self.shared is None:
            return self._sets(grouped)
        shared_BFK = _unpadded(grouped[-1], self.shared)
        return [shared_BFK + x_BFK for x_BFK in self._sets(grouped[:-1])]

    def _sets(self, grouped: list[Tensor]) -> list[Tensor]:
        if not self.wide:
            return [_unpadded(x, s) for x, s in zip(grouped, self.sections, strict=True)]
        rows_BFC = grouped[0].unflatten(1, (len(self.mean_F), -1))
        return list(rows_BFC.split(self.widths, dim=2))[::2]


def _unpadded(x: Tensor, section: Section) -> Tensor:
    """[B, F, K] of [B, F * stored]."""
    stored_BFC = x.unflatten(1, (-1, section.stored))
    return stored_BFC if section.dim == section.stored else stored_BFC[:, :, : section.dim]
