"""The multi-embedding: every feature is looked up in every table set.

Shapes: B rows, F features, S table sets, K embedding dim of a set.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from dmoe.model.embedding.tables import SHARED, Section, Table, bag_configs


class MultiEmbedding(nn.Module):
    """S table sets over F features (Multi-Embedding, Guo et al. 2023), as one EmbeddingBagCollection that TorchRec shards.

    A light multi-embedding (`make_tables(..., private_ids)`) expects the ids of a batch as converted by `PrivateIds`, a hashed one those
    of `HashedIds`.

    Args:
        tables: from `make_tables`, all with the same layout.
        device: `meta` if the tables will be sharded, so that no complete table is ever in memory.

    Shape:
        - Input: KeyedJaggedTensor with one key per feature.
        - Output: S float tensors [B, F, K].
    """

    def __init__(self, tables: Sequence[Table], device: torch.device | None = None) -> None:
        super().__init__()
        self.ebc = EmbeddingBagCollection(tables=bag_configs(tables), device=device)
        self.split = SplitSets(tables)

    def forward(self, ids: KeyedJaggedTensor) -> list[Tensor]:
        return self.split(self.ebc(ids), ids)


class SplitSets(nn.Module):
    """Splits the result of the lookup into one tensor per table set, in any order of tables, and divides sums for mean pooling.

    With TorchRec's own mean pooling, the plan would change the mathematics. Row-wise shards of tables that share a feature, and grid
    shards, gave other means than one rank (torchrec 1.8.0, found by tests/distributed/test_log.py: losses differed by 1 %), and row-wise
    sharding adds 1e-6 to every divisor.

    This must be a leaf module for TorchRec's pipeline, whose tracing of the modules above the lookup fails on the loop here.
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
        # One split of all columns, padding included: its gradient is one copy. Slices would each have a gradient of full width.
        self.widths = [width for s in self.sections for width in (s.dim, s.stored - s.dim)]

    def forward(self, looked_up: KeyedTensor, ids: KeyedJaggedTensor) -> list[Tensor]:
        sets_BFK = self._cut(looked_up)
        if not any(self.mean_F):
            return sets_BFK
        # In a light multi-embedding, private ids follow the keys of all features. Hashing does not change the number of ids.
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
    """Removes padding columns: [B, F * stored] -> [B, F, K]."""
    stored_BFC = x.unflatten(1, (-1, section.stored))
    return stored_BFC if section.dim == section.stored else stored_BFC[:, :, : section.dim]
