"""The manifest of a data set, from which a model takes its features and cardinalities.

A data set is a folder with `manifest.json` and the parquet shards of each split. A shard has the columns `label` (uint8), one float32
column for each dense feature, one int32 column for each categorical feature (a list of int32 if it is multi-valued), and, if the manifest
says so, `@weight` (float32) and `@group` (int64). No column has nulls.
"""

import hashlib
from collections import Counter
from posixpath import normpath
from typing import Literal

from pydantic import Field, model_validator

from dmoe.config.strict import FeatureName, Open, SplitName, Text, checked
from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity
from dmoe.data.dataset.part import Part
from dmoe.errors import UserError, nearest
from dmoe.json_text import format_json
from dmoe.names import first_twice, quoted
from dmoe.storage.documents import read_document
from dmoe.storage.paths import PATHS, join, write_text

FORMAT: Literal["dmoe-manifest"] = "dmoe-manifest"
VERSION: Literal[1] = 1
FILE = "manifest.json"
MAX_BYTES = 64 << 20
MISSING_ID, RARE_ID = 0, 1
"""The first two ids of every categorical feature: for a missing value, and for a token that is too rare for an id of its own."""
WEIGHT, GROUP = "@weight", "@group"
"""Columns of a shard that are not features."""
ROUNDING = 1e-9
EQUAL_BY_CHANCE = 16
"""Shards of two splits with fewer rows may be equal by chance, in a small log with few values."""
NO_GROUP = 0
"""The group of a row whose group column is empty."""


class DenseFeature(Part):
    """A float column: `transform` of the raw number, 0.0 if it was missing.

    `identity` is None in manifests of earlier versions; `dmoe.data.dataset.earlier` computes it as far as possible.
    """

    added = ("identity",)
    name: FeatureName
    transform: Text
    missing_share: float = Field(ge=0, le=1)
    identity: NumberIdentity | None = None


class CategoricalFeature(Part):
    """A column of ids 0 .. cardinality - 1.

    Attributes:
        kind: `bucket` for buckets of a numeric column, else `token`.
        pooling: how the embeddings of a row's ids are combined, if the feature is multi-valued; `none` if each row has one id.
        mean_ids: average number of ids of a row, over all splits.
        identity: the token that each id stands for; may be None, as in DenseFeature.
    """

    added = ("pooling", "mean_ids", "identity")
    name: FeatureName
    kind: Literal["token", "bucket"]
    cardinality: int = Field(ge=2, lt=2**31)
    missing_share: float = Field(ge=0, le=1)
    rare_share: float = Field(ge=0, le=1)
    pooling: Literal["none", "sum", "mean"] = "none"
    mean_ids: float = Field(1.0, gt=0, le=1e9)
    identity: TokenIdentity | None = None

    @property
    def multi_valued(self) -> bool:
        return self.pooling != "none"


class Shard(Part):
    """A parquet file; `path` is relative to the manifest."""

    path: Text = Field(min_length=1, max_length=1024)
    rows: int = Field(ge=1)
    positives: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _stays_inside(self) -> "Shard":
        if self.path.startswith("/") or ".." in self.path.split("/") or "://" in self.path:
            raise ValueError(f"path {quoted(self.path)} leaves the data set's folder")
        return self

    @model_validator(mode="after")
    def _counts_fit(self) -> "Shard":
        if self.positives > self.rows:
            raise ValueError(f"shard '{self.path}' has {self.positives:,} positives, but {self.rows:,} rows")
        return self


class Split(Part):
    """A split. If `labelled` is false, the shards have no column `label`, and can only be scored."""

    added = ("labelled",)
    rows: int = Field(ge=0)
    positives: int = Field(ge=0)
    shards: tuple[Shard, ...] = Field(strict=False)
    labelled: bool = True

    @model_validator(mode="after")
    def _adds_up(self) -> "Split":
        for what in ("rows", "positives"):
            total = sum(getattr(shard, what) for shard in self.shards)
            if total != getattr(self, what):
                raise ValueError(f"{what} is {getattr(self, what)}, but the shards hold {total}")
        if self.positives and not self.labelled:
            raise ValueError(f"positives is {self.positives:,}, but labelled is false: a split without labels has none")
        return self

    @property
    def only_label(self) -> str | None:
        """`negative` or `positive` if all rows have that label, so that there is no AUC and nothing to learn; else None."""
        return {0: "negative", self.rows: "positive"}.get(self.positives) if self.labelled and self.rows else None


class Manifest(Part):
    """The description of a data set that `dmoe preprocess` made.

    Attributes:
        made_by: command, options, versions and counts of the run, for people to read.
        weight: column of the log with the weights of the rows; `@weight` if weights come only from the sampling of negatives.
        group: column of the log by which GAUC groups the rows.
        weighted_rate: weighted share of positives in the train split, if rows have weights.
    """

    added = ("weight", "group", "weighted_rate")
    format: Literal["dmoe-manifest"] = FORMAT
    version: Literal[1] = VERSION
    dataset: Text
    dense: tuple[DenseFeature, ...] = Field(strict=False)
    categorical: tuple[CategoricalFeature, ...] = Field(strict=False)
    splits: dict[SplitName, Split]
    made_by: dict[str, object] = Field({})
    weight: str | None = None
    group: str | None = None
    weighted_rate: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Manifest":
        if twice := first_twice([one.name for one in self.dense] + [one.name for one in self.categorical]):
            raise ValueError(f"two features are named {quoted(twice)}")
        return self

    @model_validator(mode="after")
    def _fields_fit(self) -> "Manifest":
        if self.weighted_rate is not None and self.weight is None:
            raise ValueError("weighted_rate is given, but no weight column")
        for feature in self.categorical:
            if feature.missing_share + feature.rare_share > 1 + ROUNDING:
                raise ValueError(f"feature '{feature.name}': missing_share and rare_share are more than 1 together")
            if not feature.multi_valued and feature.mean_ids != 1:
                raise ValueError(f"feature '{feature.name}': mean_ids is {feature.mean_ids}, but its pooling is none: one id a row")
        return self

    @model_validator(mode="after")
    def _shards_are_their_own(self) -> "Manifest":
        """Checks that no file is listed twice, and no two splits hold the same rows: a model must not be tested on its training rows."""
        files: dict[str, str] = {}
        holder: dict[str, str] = {}
        shared: Counter[tuple[str, str]] = Counter()
        for name, split in self.splits.items():
            for shard in split.shards:
                path = normpath(shard.path)
                if path in files:
                    raise ValueError(f"splits: shard '{shard.path}' is listed twice, in '{files[path]}' and in '{name}'")
                files[path] = name
                other = holder.setdefault(shard.sha256, name)
                if other != name:
                    shared[other, name] += shard.rows
                    if shared[other, name] >= EQUAL_BY_CHANCE:
                        raise ValueError(f"splits: '{name}' holds rows of '{other}': shard '{shard.path}' has the same sha256 as one there")
        return self

    def base_rate(self, split: str) -> float:
        """The share of positives of a split, weighted if rows have weights. A model starts from that of the train split."""
        if self.weighted_rate is not None and split == "train":
            return self.weighted_rate
        return self.splits[split].positives / self.splits[split].rows

    def split(self, name: str) -> Split:
        """The split with this name.

        Raises:
            UserError: there is no such split, or it has no rows.
        """
        if name not in self.splits:
            raise UserError(f"{FILE}: no split '{name}'{nearest(name, self.splits)}")
        if not self.splits[name].rows:
            raise UserError(f"{FILE}: split '{name}' has no rows; give dmoe preprocess more rows or another --split")
        return self.splits[name]

    @property
    def rows_hash(self) -> str:
        """Identifies the rows: equal only if every split has the same shards, byte for byte."""
        shards = [[name, [[shard.rows, shard.sha256] for shard in split.shards]] for name, split in sorted(self.splits.items())]
        return hashlib.sha256(format_json(shards).encode()).hexdigest()

    @property
    def evidence(self) -> tuple[str, ...]:
        """Evidence for manifests without identities. If two data sets have an entry in common, a model of one can read the other.

        The entries name the run that made the data set, the run whose vocabulary it uses, the checksum of its vocabularies, and its rows.
        """
        keys = (("run", "fingerprint"), ("run", "of"), ("vocabulary", "vocabulary_sha256"))
        found = [f"{kind} {self.made_by[key]}" for kind, key in keys if isinstance(self.made_by.get(key), str)]
        return tuple(found + ([f"rows {self.rows_hash}"] if any(split.rows for split in self.splits.values()) else []))

    @property
    def schema_hash(self) -> str:
        """Identifies the features and their cardinalities, on which a model depends, but not the rows."""
        schema = [
            [feature.name for feature in self.dense],
            [[one.name, one.kind, one.cardinality, *([one.pooling] if one.multi_valued else [])] for one in self.categorical],
        ]
        return hashlib.sha256(format_json(schema).encode()).hexdigest()[:16]


class _Day(Open):
    name: str
    rows: int = Field(ge=0, lt=1 << 62)
    positives: int = Field(ge=0, lt=1 << 62)


class _MadeBy(Open):
    days: list[_Day] | None = None
    edges: dict[str, list[float]] | None = None


class _Read(Open):
    """The fields of `made_by` that programs read. All others are for people."""

    made_by: _MadeBy = _MadeBy()


def load_manifest(folder: str) -> Manifest:
    """Reads and checks `folder/manifest.json`.

    Raises:
        UserError: no data set, not JSON, another version, or a wrong field; names the field.
    """
    path = join(folder, FILE)
    if not folder or not PATHS.exists(path):
        raise UserError(f"data.path: no {FILE} in '{folder}'; make a data set with dmoe preprocess")
    raw = read_document(path, MAX_BYTES, "manifest", FORMAT, VERSION, "make the data set again with dmoe preprocess")
    manifest = checked(Manifest.model_validate, raw, path)
    checked(_Read.model_validate, raw, path)
    return manifest


def save_manifest(folder: str, manifest: Manifest) -> None:
    """Writes `folder/manifest.json`. It is the last file of a data set: if it exists, the data set is complete."""
    write_text(join(folder, FILE), format_json(manifest.model_dump(mode="json"), indent=1) + "\n")
