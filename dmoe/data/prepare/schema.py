"""The schema file of a log: which columns are the label, the features, weight, time and group, and how each column is read.

format: csv                       # csv, tsv, text (tab or comma, as the file has), jsonl or parquet; `delimiter:` takes any other character
label: {column: clicked, positive: "yes"}
time: {column: hour, format: "%y%m%d%H"}
weight: sample_weight
group: user_id
dense:
  - {name: price, transform: log1p}
categorical:
  - site_id
  - {name: tags, separator: "|", pooling: mean, max_values: 20, min_count: 5}
  - {name: weekday, part: weekday}
  - {name: price_bucket, column: price, bucket: log2}
  - {name: device, type: hex}
  - {name: site_x_device, cross: [site_id, device]}
"""

import copy
import os
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator

from dmoe.config.strict import Strict, checked
from dmoe.config.yaml_files import read_mapping
from dmoe.data.prepare.schema_features import Bucket, Categorical, Dense, Label, Time
from dmoe.errors import UserError, nearest
from dmoe.names import first_twice, quoted

__all__ = ["Bucket", "Categorical", "Dense", "Label", "Schema", "Time", "load_schema", "parse_schema", "shipped"]

SHIPPED = os.path.join(os.path.dirname(__file__), "schemas")
EXPECTED = "keys such as 'label:' and 'categorical:'"
DELIMITERS = {"csv": ",", "tsv": "\t"}
MOST_TYPED = 64
"""Most columns that the parser of typed text reads: it keeps one bit for each missing value in a 64-bit word."""


class Schema(Strict):
    """A checked schema file.

    Attributes:
        header: true: the first line of a text file names the columns. false: `columns` names them. auto: the first line names them if it
            holds a name of `columns` (upper or lower case), else `columns` does.
        quote: the character around fields that hold the delimiter or line ends; null if quotes are ordinary text.
        split_key: `--split-by key` splits by the values of this column, unless --split-key names another.
        negatives: share of the rows with label 0 that the train split keeps, unless --negatives gives another.
        missing: texts that mean "no value", in addition to the empty text.
    """

    format: Literal["csv", "tsv", "text", "jsonl", "parquet"] = "csv"
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    header: bool | Literal["auto"] = True
    columns: list[str] | None = Field(None, min_length=2)
    quote: str | None = Field('"', min_length=1, max_length=1)
    missing: list[str] = Field([])
    label: Label
    time: Time | None = None
    weight: str | None = Field(None, min_length=1)
    group: str | None = Field(None, min_length=1)
    split_key: str | None = Field(None, min_length=1)
    negatives: float | None = Field(None, gt=0, le=1)
    dense: list[Dense] = Field([])
    categorical: list[Categorical] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> "Schema":
        if twice := first_twice([one.name for one in self.dense] + [one.name for one in self.categorical]):
            raise ValueError(f"two features are named {quoted(twice)}")
        text = self.is_text
        if text and (self.header is True) == bool(self.columns):
            raise ValueError("columns: give the columns' names where header is false, and only there")
        if not text and (self.columns or self.delimiter):
            raise ValueError(f"a {self.format} file has its own columns: leave columns and delimiter out")
        if self.columns and len(set(self.columns)) < len(self.columns):
            raise ValueError("columns: a name is there twice")
        if self.format == "text" and self.delimiter:
            raise ValueError("delimiter: format text takes a tab or a comma, whichever the file has")
        if text and self.delimiter_bytes.decode() in ("\n", "\r", self.quote):
            raise ValueError("delimiter: cannot be a line's end or the quote")
        if text and not (self.delimiter_bytes + (self.quote or "").encode()).isascii():
            raise ValueError("delimiter, quote: expected an ASCII character")
        for one in self.categorical:
            if text and one.pooling and not one.separator:
                raise ValueError(f"'{one.name}' has pooling, so say what separates its values: separator: '|'")
            if one.part and (self.time is None or not self.time.format):
                raise ValueError(f"'{one.name}' is a part of the time: give time: {{column: ..., format: ...}}")
            self._check_cross(one)
        return self

    def _check_cross(self, one: Categorical) -> None:
        if twice := first_twice(one.cross or []):
            raise ValueError(f"'{one.name}' crosses {quoted(twice)} twice")
        for name, part in zip(one.cross or [], self.parts_of(one), strict=False):
            if part.pooling or part.cross:
                raise ValueError(f"'{one.name}': part {quoted(name)} {'has several tokens a row' if part.pooling else 'is a cross itself'}")
            if part not in self.categorical and name in {number.name for number in self.dense}:
                raise ValueError(f"'{one.name}': part {quoted(name)} is a number; cross a bucket of it")
            if part not in self.categorical and name in ("", self.label.column):
                raise ValueError(f"'{one.name}': part {quoted(name)} is {'the label' if name else 'no name'}")

    @property
    def optional_for_scores(self) -> tuple[str, ...]:
        """Keys of the columns that scores do not depend on."""
        return ("weight", "group") if any(one.part for one in self.categorical) else ("weight", "group", "time")

    def column_of(self, key: str) -> str | None:
        """The column that a key of `optional_for_scores` reads."""
        if key == "time":
            return self.time.column if self.time else None
        return self.weight if key == "weight" else self.group

    def without(self, keys: Iterable[str]) -> "Schema":
        """A copy of the schema without some keys of `optional_for_scores`."""
        return self.model_copy(update=dict.fromkeys(keys))

    @property
    def delimiter_bytes(self) -> bytes:
        return (self.delimiter or DELIMITERS.get(self.format, ",")).encode()

    @property
    def quote_bytes(self) -> bytes:
        """Empty if quotes are ordinary text."""
        return (self.quote or "").encode() if self.is_text else b""

    @property
    def is_text(self) -> bool:
        """Whether the format is text with fields between delimiters."""
        return self.format not in ("jsonl", "parquet")

    @property
    def lists(self) -> set[str]:
        """The columns that only multi-valued features read, so that a row may hold a list there."""
        pooled = {one.column or one.name for one in self.categorical if one.pooling}
        single = {one.column or one.name for one in self.features if isinstance(one, Dense) or not (one.pooling or one.part)}
        return pooled - single - {self.label.column, self.weight, self.group, self.time and self.time.column}

    @property
    def features(self) -> list[Dense | Categorical]:
        return [*self.dense, *self.categorical]

    def parts_of(self, one: Categorical) -> list[Categorical]:
        """The features whose tokens make the tokens of `one`: the feature itself, or the parts of a cross.

        The name of a part is that of a feature, else of a column that some feature reads as tokens, else of a text column that no
        feature reads.
        """
        if not one.cross:
            return [one]
        named = {part.name: part for part in self.categorical}
        plain = {part.column: part for part in reversed(self.categorical) if part.column and not (part.bucket or part.pooling)}
        return [named.get(name) or plain.get(name) or Categorical.model_construct(name=name, column=name) for name in one.cross]

    @property
    def stored(self) -> list[Dense | Categorical]:
        """The features whose values the intermediate parts store: all except crosses, and the columns that only crosses read."""
        crossed = [part for one in self.categorical if one.cross for part in self.parts_of(one) if part not in self.categorical]
        return [*self.dense, *(one for one in self.categorical if not one.cross), *crossed]

    @property
    def whole_numbers(self) -> set[str]:
        """The columns that hold integers of 32 bits."""
        return {one.column or one.name for one in self.dense if one.type == "int"}

    @property
    def typed_columns(self) -> dict[str, str] | None:
        """The type (number, hex or int) of every column except the label, if the parser of typed text can read the log; else None."""
        plain = self.is_text and not (self.quote or self.missing or self.label.positive)
        others = self.time or self.weight or self.group or self.split_key
        if not plain or others or any(one.pooling or one.part for one in self.categorical):
            return None
        # In the order of the features. The order of a set would differ between processes.
        stored = list(dict.fromkeys((kind, column) for one in self.stored for kind, _, column in [one.stored.partition(":")]))
        kinds = {column: kind for kind, column in stored}
        numbers = {column for column, kind in kinds.items() if kind == "number"}
        if len(kinds) < len(stored) or len(kinds) > MOST_TYPED or "string" in kinds.values() or not numbers <= self.whole_numbers:
            return None
        return kinds

    def used(self, labelled: bool = True) -> dict[str, str]:
        """Every column that is read, with the key of the schema that names it."""
        used = {self.label.column: "label"} if labelled else {}
        others = {"time": self.time and self.time.column, "weight": self.weight, "group": self.group, "split_key": self.split_key}
        for key, column in others.items():
            if column:
                used.setdefault(column, key)
        for one in self.stored:
            if isinstance(one, Dense) or not one.part:
                used.setdefault(one.column or one.name, one.name)
        return used


def load_schema(path: str) -> Schema:
    """Reads a schema file, or a shipped schema by its name, such as criteo (dmoe/data/prepare/schemas).

    Raises:
        UserError: no such file, not YAML, an unknown key (suggests the nearest), or keys that contradict each other; names file and key.
    """
    if path in shipped():
        path = os.path.join(SHIPPED, f"{path}.yaml")
    elif path.isidentifier() and not os.path.exists(path):
        raise UserError(f"--schema {path}: no such file, and no shipped schema of that name{nearest(path, shipped())}")
    return parse_schema(read_mapping(path, f"--schema {path}", "schema", EXPECTED), path)


def shipped() -> list[str]:
    """The names of the shipped schemas."""
    return sorted(name.removesuffix(".yaml") for name in os.listdir(SHIPPED))


def parse_schema(tree: Any, where: str) -> Schema:
    """Checks a schema that was read from YAML or JSON. Short forms: `label: click`, `time: hour`, the bare name of a feature,
    `bucket: log2`.

    Args:
        where: start of the error messages.
    """
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected {EXPECTED}, found {type(tree).__name__}")
    tree = copy.deepcopy(tree)
    for key in ("label", "time"):
        if isinstance(tree.get(key), str):
            tree[key] = {"column": tree[key]}
    for key in ("dense", "categorical"):
        if isinstance(tree.get(key), list):
            tree[key] = [_whole(one) for one in tree[key]]
    return checked(Schema.model_validate, tree, where)


def _whole(feature: Any) -> Any:
    """A feature with its short forms written out."""
    if isinstance(feature, str):
        return {"name": feature}
    if isinstance(feature, dict) and isinstance(feature.get("bucket"), str):
        feature["bucket"] = {"formula": feature["bucket"]}
    return feature
