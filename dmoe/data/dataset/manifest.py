"""The manifest of a data set: what a model is built from, so that nobody types a cardinality.

A data set is a folder: `manifest.json`, and parquet shards per split with the columns `label` (uint8), one float32 column
a dense feature and one int32 column (or list of int32, where it is multi-valued) a categorical feature, all without nulls; and
`@weight` (float32) and `@group` (int64) where the manifest has them.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from dmoe.config import Text
from dmoe.errors import UserError, nearest
from dmoe.json_text import parse_json
from dmoe.names import check_feature, check_split, first_twice, quoted
from dmoe.paths import PATHS, join, read_bounded, write_text

FORMAT: Literal["dmoe-manifest"] = "dmoe-manifest"
VERSION: Literal[1] = 1
FILE = "manifest.json"
MAX_BYTES = 64 << 20
MISSING_ID, RARE_ID = 0, 1
"""Ids that every categorical feature has: the value was empty; the token was too rare for an id of its own."""
WEIGHT, GROUP = "@weight", "@group"
"""Columns of a shard that are no features."""
NO_GROUP = 0
"""Group of a row whose group column is empty."""
FeatureName = Annotated[str, AfterValidator(check_feature)]
SplitName = Annotated[str, AfterValidator(check_split)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    added: ClassVar[tuple[str, ...]] = ()
    """Fields that came after version 1, written only where they say something: other data sets' files stay as they were."""

    @model_serializer(mode="wrap")
    def _without_the_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        return {name: value for name, value in dumped.items() if name not in self.added or value != type(self).model_fields[name].default}


class DenseFeature(Strict):
    """A float column: `transform` of the raw integer, 0.0 where it was missing."""

    name: FeatureName
    transform: Text
    missing_share: float = Field(ge=0, le=1)


class CategoricalFeature(Strict):
    """An id column with ids 0 .. cardinality - 1. `bucket` features are a dense column's buckets; `token` ones are the log's own.

    Attributes:
        pooling: how a row's ids become one embedding where the feature is multi-valued; `none` where each row has one id.
        mean_ids: ids a row, on average over all splits.
    """

    added = ("pooling", "mean_ids")
    name: FeatureName
    kind: Literal["token", "bucket"]
    cardinality: int = Field(ge=2, lt=2**31)
    missing_share: float = Field(ge=0, le=1)
    rare_share: float = Field(ge=0, le=1)
    pooling: Literal["none", "sum", "mean"] = "none"
    mean_ids: float = Field(1.0, gt=0)

    @property
    def multi_valued(self) -> bool:
        return self.pooling != "none"


class Shard(Strict):
    """A parquet file; `path` is relative to the manifest."""

    path: Text = Field(min_length=1)
    rows: int = Field(ge=1)
    positives: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _stays_inside(self) -> "Shard":
        if self.path.startswith("/") or ".." in self.path.split("/") or "://" in self.path:
            raise ValueError(f"path {quoted(self.path)} leaves the data set's folder")
        return self


class Split(Strict):
    """`labelled` is false where the log had no clicks in it: the shards then have no column `label`, and can be scored only."""

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
        return self


class Manifest(Strict):
    """What `dmoe preprocess` made. `made_by` holds the command, options, versions and counts of the run, for people to read.

    Attributes:
        weight, group: the column whose numbers weigh the rows, and the one whose values group them (for GAUC), as the log names them.
        weighted_rate: the weighted share of positives in the train split, where rows are weighted.
    """

    added = ("weight", "group", "weighted_rate")
    format: Literal["dmoe-manifest"] = FORMAT
    version: Literal[1] = VERSION
    dataset: Text
    dense: tuple[DenseFeature, ...] = Field(strict=False)
    categorical: tuple[CategoricalFeature, ...] = Field(strict=False)
    splits: dict[SplitName, Split]
    made_by: dict[str, object] = {}
    weight: str | None = None
    group: str | None = None
    weighted_rate: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Manifest":
        if twice := first_twice([one.name for one in self.dense] + [one.name for one in self.categorical]):
            raise ValueError(f"two features are named {quoted(twice)}")
        return self

    def base_rate(self, split: str) -> float:
        """The share of positives that a model of this split starts from: weighted where the rows are."""
        if self.weighted_rate is not None and split == "train":
            return self.weighted_rate
        return self.splits[split].positives / self.splits[split].rows

    def split(self, name: str) -> Split:
        """The split of that name, which must have rows."""
        if name not in self.splits:
            raise UserError(f"{FILE}: no split '{name}'{nearest(name, self.splits)}")
        if not self.splits[name].rows:
            raise UserError(f"{FILE}: split '{name}' has no rows; give preprocess.py more rows or another --split")
        return self.splits[name]

    @property
    def schema_hash(self) -> str:
        """Identifies what a model depends on: the features and their cardinalities, not the rows."""
        schema = [
            [feature.name for feature in self.dense],
            [[one.name, one.kind, one.cardinality, *([one.pooling] if one.multi_valued else [])] for one in self.categorical],
        ]
        return hashlib.sha256(json.dumps(schema).encode()).hexdigest()[:16]


def load_manifest(folder: str) -> Manifest:
    """Reads and checks `folder/manifest.json`.

    Raises:
        UserError: no such data set, not JSON, another version, or a field that is wrong, named.
    """
    path = join(folder, FILE)
    if not folder or not PATHS.exists(path):
        raise UserError(f"data.path: no {FILE} in '{folder}'; make a data set with dmoe preprocess")
    try:
        raw = parse_json(read_bounded(path, MAX_BYTES, "manifest"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); make the data set again with dmoe preprocess") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise UserError(f"{path}: not a dmoe manifest (its format is not '{FORMAT}')")
    if raw.get("version") != VERSION:
        raise UserError(
            f"{path}: manifest version {raw.get('version')!r}, this dmoe reads version {VERSION};"
            " make the data set again with this version's dmoe preprocess"
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise UserError(f"{path}: {where}: {first['msg']}") from None


def save_manifest(folder: str, manifest: Manifest) -> None:
    """Writes `folder/manifest.json`, the last file of a data set: where it stands, the data set is whole."""
    write_text(join(folder, FILE), json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
