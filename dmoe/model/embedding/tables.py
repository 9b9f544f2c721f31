"""Logical tables (the embeddings of a feature in one table set) and the physical tables that store them.

Checkpoints, initial weights and reports use logical tables; the planner shards physical tables. In the `wide` layout, a physical row holds
the embeddings of all sets of a feature, side by side. In the `separate` layout, each set has its own physical table.

A light multi-embedding has one table per feature that all sets share, `C1/shared`, and for the most frequent ids one private row per set,
in `C1/0`, `C1/1`, .... The embedding of a frequent id is the sum of the shared and the private row, that of another id the shared row. A
hashed multi-embedding has only `C1/shared`. Each expert reads it through its own hash of the ids.

Tables are named after features, which may have any name. TorchRec uses the name of a table as the name of a module, which must not contain
some characters, so it gets another name (`Table.module`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torchrec.modules.embedding_configs import EmbeddingBagConfig

from dmoe.data.dataset.manifest import CategoricalFeature

COLUMN_MULTIPLE = 4
"""FBGEMM kernels need a multiple of 4 columns: a dim of 10 is stored as 12. The last two columns stay 0 and are cut after the lookup."""
MAX_MODULE_NAME = 40
SHARED = -1
"""The set index of a table that all sets share, in a light or hashed multi-embedding."""


def private_key(feature: str) -> str:
    """The key in a batch of those ids of a feature that have private rows. No feature name begins with `@`."""
    return f"@private {feature}"


def hash_key(feature: str, expert: int) -> str:
    """The key in a batch of the rows that the hash of an expert gives for the ids of a feature."""
    return f"@{expert} {feature}"


@dataclass(frozen=True)
class Section:
    """The columns of a physical table that hold a logical table: [offset, offset + dim), padded to `stored` columns."""

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
        name: the name in plans, constraints and messages.
        module: the name in EmbeddingBagCollection. It is a valid and unique module name for any feature name.
        pooling: `sum` or `mean` of the embeddings of the ids of a row.
        mean_ids: mean number of ids that a row looks up; the pooling factor of the planner.
        private: the table holds only the private rows of a light multi-embedding; ids below `rows` are looked up in it.
        readers: number of experts that read the table through their own hash of the ids; 0 if ids are not hashed.
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
        """The keys in a batch of the ids that are looked up in this table."""
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
    """Makes the physical tables of a model, in the order of the features.

    Args:
        set_dims: dim of each table set; one entry if all experts share a set.
        layout: `wide` or `separate`.
        private_ids: for a light multi-embedding, the number of ids of each feature with private rows. Shared tables come first.
        hashed_rows: for a hashed multi-embedding, the largest number of rows of the table of a feature.
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
    # Each table of a feature has another suffix, so that no two tables have the same name, for any feature names.
    shared = [_table(feature, f"{feature.name}__shared", (Section(SHARED, 0, set_dims[0]),)) for feature in features]
    private = [
        replace(table, name=f"{feature.name}__private" if layout == "wide" else table.name, rows=min(table.rows, private_ids), private=True)
        for feature in features
        for table in _tables_of(feature, set_dims, layout)
    ]
    return _numbered(shared + private)


def module_name(number: int, name: str) -> str:
    """The name of table `number` in EmbeddingBagCollection. With the number, the name is unique and never an attribute of nn.ModuleDict.
    The rest helps to read TorchRec's messages."""
    return f"{number}_{re.sub('[^A-Za-z0-9_]', '_', name)[:MAX_MODULE_NAME]}"


def _numbered(tables: Sequence[Table]) -> list[Table]:
    return [replace(table, module=module_name(number, table.name)) for number, table in enumerate(tables)]


def _tables_of(feature: CategoricalFeature, set_dims: Sequence[int], layout: str) -> list[Table]:
    """One table for all sets (`wide`), or one for each set (`separate`)."""
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
    """TorchRec's configs of the tables. All use sum pooling; see `SplitSets` for mean pooling."""
    return [
        EmbeddingBagConfig(name=table.module, embedding_dim=table.columns, num_embeddings=table.rows, feature_names=table.keys)
        for table in tables
    ]
