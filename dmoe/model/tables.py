"""Logical tables (a feature's embeddings for one expert set) and the physical tables that store them.

A checkpoint, the initial weights and a report speak of logical tables; the planner shards physical ones. In the `wide` layout a
feature's sets lie side by side in one row; in the `separate` layout each has a table of its own.

Tables are named after features, which may have any name; TorchRec, for which a table's name is an attribute of a module, gets one of ours.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torchrec.modules.embedding_configs import EmbeddingBagConfig

from dmoe.data.dataset.manifest import CategoricalFeature

COLUMN_MULTIPLE = 4
"""FBGEMM's kernels want a row's columns in fours: a dim of 10 is stored as 12, whose last two stay 0 and are cut off after the lookup."""
MAX_MODULE_NAME = 40


@dataclass(frozen=True)
class Section:
    """Where a logical table lies in the rows of a physical one: columns [offset, offset + dim), padded to `stored`."""

    set_index: int
    offset: int
    dim: int

    @property
    def stored(self) -> int:
        return -(-self.dim // COLUMN_MULTIPLE) * COLUMN_MULTIPLE


@dataclass(frozen=True)
class Table:
    """A physical table.

    Attributes:
        name: what plans, constraints, messages and users call it.
        module: what EmbeddingBagCollection calls it: a module's name, which no feature's name can spoil or collide with.
        pooling: `sum` or `mean` of the embeddings of a row's ids.
        mean_ids: ids that a row looks up, on average: the planner's pooling factor.
    """

    name: str
    module: str
    feature: str
    rows: int
    sections: tuple[Section, ...]
    pooling: str = "sum"
    mean_ids: float = 1.0

    @property
    def columns(self) -> int:
        return sum(section.stored for section in self.sections)

    def logical_name(self, section: Section) -> str:
        return f"{self.feature}/{section.set_index}"


def make_tables(features: Sequence[CategoricalFeature], set_dims: Sequence[int], layout: str) -> list[Table]:
    """The physical tables of a model, in the features' order.

    Args:
        features: from the manifest.
        set_dims: the dim of every table set; one entry where all experts share one.
        layout: `wide` or `separate`.
    """
    tables: list[Table] = []
    for feature in features:
        sections, offset = [], 0
        for index, dim in enumerate(set_dims):
            section = Section(index, offset if layout == "wide" else 0, dim)
            offset += section.stored
            sections.append(section)
        if layout == "wide":
            named = [(feature.name, tuple(sections))]
        else:
            named = [(f"{feature.name}__{section.set_index}", (section,)) for section in sections]
        pooling = "mean" if feature.pooling == "mean" else "sum"
        for name, cut in named:
            # The number makes it unique and no attribute of nn.ModuleDict; the rest is for people who read TorchRec's messages.
            module = f"{len(tables)}_{re.sub('[^A-Za-z0-9_]', '_', name)[:MAX_MODULE_NAME]}"
            tables.append(Table(name, module, feature.name, feature.cardinality, cut, pooling, feature.mean_ids))
    return tables


def bag_configs(tables: Sequence[Table]) -> list[EmbeddingBagConfig]:
    """TorchRec's description of the tables. All sum: a mean is made of the sum by SplitSets, which see."""
    return [
        EmbeddingBagConfig(name=table.module, embedding_dim=table.columns, num_embeddings=table.rows, feature_names=[table.feature])
        for table in tables
    ]
