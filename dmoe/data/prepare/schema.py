"""The schema file of a log: which of its columns are the label, features, weight, time and group, and how each is read.

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

from dmoe.data.prepare.schema_features import Bucket, Categorical, Dense, Label, Time
from dmoe.errors import UserError, nearest
from dmoe.names import first_twice, quoted
from dmoe.strict import Strict, checked
from dmoe.yaml_files import read_mapping

__all__ = ["Bucket", "Categorical", "Dense", "Label", "Schema", "Time", "load_schema", "parse_schema", "shipped"]

SHIPPED = os.path.join(os.path.dirname(__file__), "schemas")
EXPECTED = "keys such as 'label:' and 'categorical:'"
DELIMITERS = {"csv": ",", "tsv": "\t"}
MOST_TYPED = 64
"""Columns that the front end for typed text reads: the missing ones of a row are the bits of one word."""


class Schema(Strict):
    """What `--schema` names.

    Attributes:
        header: a text file's first line names its columns; with false, `columns` does; with auto, the first line does where it has names
            of `columns`, in any case.
        quote: the character around fields that hold the delimiter or line ends; null where quotes are text.
        split_key: the column by whose values `--split-by key` splits; the command's --split-key where absent.
        negatives: the share of the train split's rows of label 0 that is kept; the command's --negatives where absent.
        missing: texts that mean "no value", beside the empty one.
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
        """Keys of columns that scores do not depend on."""
        return ("weight", "group") if any(one.part for one in self.categorical) else ("weight", "group", "time")

    def column_of(self, key: str) -> str | None:
        """The column that a key of `optional_for_scores` reads."""
        if key == "time":
            return self.time.column if self.time else None
        return self.weight if key == "weight" else self.group

    def without(self, keys: Iterable[str]) -> "Schema":
        """The schema without these of `optional_for_scores`."""
        return self.model_copy(update=dict.fromkeys(keys))

    @property
    def delimiter_bytes(self) -> bytes:
        return (self.delimiter or DELIMITERS.get(self.format, ",")).encode()

    @property
    def quote_bytes(self) -> bytes:
        """Empty where quotes are text."""
        return (self.quote or "").encode() if self.is_text else b""

    @property
    def is_text(self) -> bool:
        """Whether lines hold fields between delimiters."""
        return self.format not in ("jsonl", "parquet")

    @property
    def lists(self) -> set[str]:
        """The columns that only bags are made of, so that a row may have a list there."""
        pooled = {one.column or one.name for one in self.categorical if one.pooling}
        single = {one.column or one.name for one in self.features if isinstance(one, Dense) or not (one.pooling or one.part)}
        return pooled - single - {self.label.column, self.weight, self.group, self.time and self.time.column}

    @property
    def features(self) -> list[Dense | Categorical]:
        return [*self.dense, *self.categorical]

    def parts_of(self, one: Categorical) -> list[Categorical]:
        """The features whose tokens those of `one` are made of: itself, or a cross's parts. A part is named by a feature, else by a column
        that one reads as tokens, else by a column of text that none reads."""
        if not one.cross:
            return [one]
        named = {part.name: part for part in self.categorical}
        plain = {part.column: part for part in reversed(self.categorical) if part.column and not (part.bucket or part.pooling)}
        return [named.get(name) or plain.get(name) or Categorical.model_construct(name=name, column=name) for name in one.cross]

    @property
    def stored(self) -> list[Dense | Categorical]:
        """The features that parts store (`stored`): all but crosses, and the columns that crosses alone read."""
        crossed = [part for one in self.categorical if one.cross for part in self.parts_of(one) if part not in self.categorical]
        return [*self.dense, *(one for one in self.categorical if not one.cross), *crossed]

    @property
    def whole_numbers(self) -> set[str]:
        """The columns that hold integers of 32 bits."""
        return {one.column or one.name for one in self.dense if one.type == "int"}

    @property
    def typed_columns(self) -> dict[str, str] | None:
        """What each column but the label's holds (number, hex or int), where lines hold nothing else; None where they do."""
        plain = self.is_text and not (self.quote or self.missing or self.label.positive)
        others = self.time or self.weight or self.group or self.split_key
        if not plain or others or any(one.pooling or one.part for one in self.categorical):
            return None
        # In the features' order, not a set's: every process is to have the same one.
        stored = list(dict.fromkeys((kind, column) for one in self.stored for kind, _, column in [one.stored.partition(":")]))
        kinds = {column: kind for kind, column in stored}
        numbers = {column for column, kind in kinds.items() if kind == "number"}
        if len(kinds) < len(stored) or len(kinds) > MOST_TYPED or "string" in kinds.values() or not numbers <= self.whole_numbers:
            return None
        return kinds

    def used(self, labelled: bool = True) -> dict[str, str]:
        """Every column that is read, and the schema's key that asks for it."""
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
    """Reads a schema file, or one that dmoe brings along by its name, such as criteo (dmoe/data/prepare/schemas).

    Raises:
        UserError: no such file, not YAML, an unknown key (the nearest one is named), or parts that do not fit; names file and key.
    """
    if path in shipped():
        path = os.path.join(SHIPPED, f"{path}.yaml")
    elif path.isidentifier() and not os.path.exists(path):
        raise UserError(f"--schema {path}: no such file, and no schema that dmoe brings along{nearest(path, shipped())}")
    return parse_schema(read_mapping(path, f"--schema {path}", "schema", EXPECTED), path)


def shipped() -> list[str]:
    """The names of the schemas that dmoe brings along."""
    return sorted(name.removesuffix(".yaml") for name in os.listdir(SHIPPED))


def parse_schema(tree: Any, where: str) -> Schema:
    """Checks a schema's tree; `where` begins the error messages. Short forms: `label: click`, `time: hour`, a feature's bare name,
    `bucket: log2`."""
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
    """A feature without its short forms."""
    if isinstance(feature, str):
        return {"name": feature}
    if isinstance(feature, dict) and isinstance(feature.get("bucket"), str):
        feature["bucket"] = {"formula": feature["bucket"]}
    return feature
