"""Logical tables (a feature's embeddings for one expert set) and the physical tables that store them.

A checkpoint, the initial weights and a report speak of logical tables; the planner shards physical ones. In the `wide` layout a
feature's sets lie side by side in one row; in the `separate` layout each has a table of its own.

A light multi-embedding has one table a feature that all sets share, `C1/shared`, and for its most frequent ids one more row a set, `C1/0`,
`C1/1`, ...: an embedding is the sum of both, and of the less frequent ids the shared row alone. A hashed one has `C1/shared` alone, of
which each expert reads the rows that its own hash makes of ids.

Tables are named after features, which may have any name; TorchRec, for which a table's name is an attribute of a module, gets one of ours.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torchrec.modules.embedding_configs import EmbeddingBagConfig

from dmoe.data.dataset.manifest import CategoricalFeature

COLUMN_MULTIPLE = 4
"""FBGEMM's kernels want a row's columns in fours: a dim of 10 is stored as 12, whose last two stay 0 and are cut off after the lookup."""
MAX_MODULE_NAME = 40
SHARED = -1
"""The index of the table that all sets of a light multi-embedding share."""


def private_key(feature: str) -> str:
    """What a batch calls a feature's ids that have private rows. No feature's name begins so."""
    return f"@private {feature}"


def hash_key(feature: str, expert: int) -> str:
    """What a batch calls the rows that an expert's hash makes of a feature's ids."""
    return f"@{expert} {feature}"


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
        private: holds rows of a light multi-embedding's most frequent ids alone; ids below `rows` are looked up in it.
        readers: experts that read it, each through its own hash of the ids; 0 where ids are rows.
    """

    name: str
    module: str
    feature: str
    rows: int
    sections: tuple[Section, ...]
    pooling: str = "sum"
    mean_ids: float = 1.0
    private: bool = False
    readers: int = 0

    @property
    def keys(self) -> list[str]:
        """What a batch calls the ids that are looked up."""
        if self.readers:
            return [hash_key(self.feature, expert) for expert in range(self.readers)]
        return [private_key(self.feature) if self.private else self.feature]

    @property
    def columns(self) -> int:
        return sum(section.stored for section in self.sections)

    def logical_name(self, section: Section) -> str:
        return f"{self.feature}/{'shared' if section.set_index == SHARED else section.set_index}"


def make_tables(
    features: Sequence[CategoricalFeature],
    set_dims: Sequence[int],
    layout: str,
    private_ids: int | None = None,
    hashed_rows: int | None = None,
) -> list[Table]:
    """The physical tables of a model, in the features' order.

    Args:
        features: from the manifest.
        set_dims: the dim of every table set; one entry where all experts share one.
        layout: `wide` or `separate`.
        private_ids: of a light multi-embedding, ids of each feature that have private rows. The shared tables come first.
        hashed_rows: most rows of a feature's one table, which every set reads through a hash of its own.
    """
    if hashed_rows is not None:
        sections = (Section(SHARED, 0, set_dims[0]),)
        return _numbered(
            [
                replace(_table(feature, feature.name, sections), rows=min(feature.cardinality, hashed_rows), readers=len(set_dims))
                for feature in features
            ]
        )
    if private_ids is None:
        return _numbered([table for feature in features for table in _tables_of(feature, set_dims, layout)])
    # Names end in a part that no other table of the feature has, so that no two tables have one name, whatever features are called.
    shared = [_table(feature, f"{feature.name}__shared", (Section(SHARED, 0, set_dims[0]),)) for feature in features]
    private = [
        replace(table, rows=min(table.rows, private_ids), private=True, name=_private_name(table, layout))
        for feature in features
        for table in _tables_of(feature, set_dims, layout)
    ]
    return _numbered(shared + private)


def module_name(number: int, name: str) -> str:
    """What EmbeddingBagCollection calls the model's table `number`. The number makes that unique and no attribute of nn.ModuleDict; the
    rest is for people who read TorchRec's messages."""
    return f"{number}_{re.sub('[^A-Za-z0-9_]', '_', name)[:MAX_MODULE_NAME]}"


def _numbered(tables: Sequence[Table]) -> list[Table]:
    return [replace(table, module=module_name(number, table.name)) for number, table in enumerate(tables)]


def _private_name(table: Table, layout: str) -> str:
    return f"{table.feature}__private" if layout == "wide" else table.name


def _tables_of(feature: CategoricalFeature, set_dims: Sequence[int], layout: str) -> list[Table]:
    """One table of all sets, or one for each."""
    sections, offset = [], 0
    for index, dim in enumerate(set_dims):
        section = Section(index, offset if layout == "wide" else 0, dim)
        offset += section.stored
        sections.append(section)
    if layout == "wide":
        return [_table(feature, feature.name, tuple(sections))]
    return [_table(feature, f"{feature.name}__{section.set_index}", (section,)) for section in sections]


def _table(feature: CategoricalFeature, name: str, sections: tuple[Section, ...]) -> Table:
    pooling = "mean" if feature.pooling == "mean" else "sum"
    return Table(name, "", feature.name, feature.cardinality, sections, pooling, feature.mean_ids)


def bag_configs(tables: Sequence[Table]) -> list[EmbeddingBagConfig]:
    """TorchRec's description of the tables. All sum: a mean is made of the sum by SplitSets, which see."""
    return [
        EmbeddingBagConfig(name=table.module, embedding_dim=table.columns, num_embeddings=table.rows, feature_names=table.keys)
        for table in tables
    ]
