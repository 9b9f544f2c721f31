"""The parts of a schema that describe single columns: label, time, numbers and tokens."""

from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dmoe.config.strict import FeatureName, Strict, Text
from dmoe.data.prepare.encode.times import parse_format


class Label(Strict):
    """The label, 0 or 1, in `column`. If `positive` is given, that value is 1 and every other value is 0.

    Attributes:
        positive: a number is compared with numbers (1 equals 1.0), a boolean with booleans (true equals True), anything else as text.
    """

    column: str = Field(min_length=1)
    positive: str | None = Field(None, min_length=1)

    @field_validator("positive", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Accepts numbers and booleans of YAML, which people write without quotes."""
        return str(value).lower() if isinstance(value, bool | int | float) else value


class Time(Strict):
    """The time column.

    Attributes:
        format: of strptime (dmoe.data.prepare.encode.times); `unix` (seconds); or `unix_ms`. If absent, the column holds plain numbers,
            which give an order but no dates. Times are UTC, unless the format has %z.
    """

    column: str = Field(min_length=1)
    format: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_read_whole(self) -> "Time":
        if self.format not in (None, "unix", "unix_ms"):
            parse_format(self.format)
        return self


class Dense(Strict):
    """A dense feature: one number for each row.

    Attributes:
        type: with `int`, any text that is not a 32-bit integer is malformed.
        transform: `log1p` is sign(x) * ln(1 + |x|); `standardise` subtracts the mean of the train split and divides by its standard
            deviation. A missing number becomes 0.0 after the transform.
    """

    name: FeatureName
    column: str = ""
    type: Literal["float", "int"] = "float"
    transform: Literal["none", "log1p", "standardise"] = "none"

    @property
    def stored(self) -> str:
        """The column of the intermediate parts (dmoe.data.prepare.write.parts) that holds the feature's values."""
        return f"number:{self.column or self.name}"


class Bucket(Strict):
    """How numbers become bucket numbers. Exactly one attribute is given.

    Attributes:
        formula: `log2`: 0 for |v| < 1, else the sign of v times 1 + floor(log2 |v|). `log_squared`, Criteo's: floor(v) for v <= 2, else
            3 + floor(ln(v)^2).
        edges: ascending. The bucket of v is the number of edges <= v.
        quantiles: number of buckets, each with about the same number of train rows.
    """

    formula: Literal["log2", "log_squared"] | None = None
    edges: list[float] | None = Field(None, min_length=1)
    quantiles: int | None = Field(None, ge=2, le=10_000)

    @model_validator(mode="after")
    def _fits(self) -> "Bucket":
        if sum(one is not None for one in (self.formula, self.edges, self.quantiles)) != 1:
            raise ValueError("give one of log2, log_squared, {edges: [...]} and {quantiles: ...}")
        if self.edges and any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges: expected ascending numbers")
        return self


class Categorical(Strict):
    """A categorical feature: one token for each row, or, with `pooling`, several.

    Attributes:
        type: of the tokens: string; hex (1 to 8 digits); or int (64 bits). Other texts are malformed. Tokens with equal counts get ids in
            the order of their bytes, or of their numbers. Buckets and parts of the time have whole numbers as tokens.
        part: the token is made from the time column: hour (0..23), weekday (0 is Sunday, as in strftime's %w) or is_weekend (0, 1).
        bucket: the token is the bucket of a numeric column.
        cross: the tokens of two or more features, or text columns, joined (dmoe.data.prepare.tokens.crosses); missing if one is missing.
        separator: separates the tokens in a text. Parquet and JSON may hold a list instead.
        pooling: how the embeddings of a row's tokens are combined.
        max_values: only the first `max_values` tokens of a row are kept.
        min_count: a token needs this many occurrences in the train split for an id of its own; --min-count if absent.
        max_ids: at most this many tokens, the most frequent ones, get ids of their own; --max-ids if absent.
    """

    name: FeatureName
    column: str = ""
    type: Literal["string", "hex", "int"] = "string"
    part: Literal["hour", "weekday", "is_weekend"] | None = None
    bucket: Bucket | None = None
    cross: list[Text] | None = Field(None, min_length=2)
    separator: str | None = Field(None, min_length=1)
    pooling: Literal["sum", "mean"] | None = None
    max_values: int | None = Field(None, ge=1)
    min_count: int | None = Field(None, ge=1)
    max_ids: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> "Categorical":
        if self.pooling is None and (self.separator or self.max_values):
            raise ValueError(f"'{self.name}' has a separator or max_values, but no pooling; add pooling: sum or mean")
        if self.part and (self.pooling or self.column):
            raise ValueError(f"'{self.name}' is a part of the time; it has no column and no pooling")
        if self.bucket and (self.pooling or self.part):
            raise ValueError(f"'{self.name}' has buckets, so it has no pooling and is no part of the time")
        if self.cross and (self.column or self.part or self.bucket or self.pooling or self.type != "string"):
            raise ValueError(f"'{self.name}' is a cross: it has no column, type, part, bucket and pooling of its own")
        if self.type == "hex" and (self.bucket or self.part):
            raise ValueError(f"'{self.name}' has numbers for tokens, so its type is int or string")
        return self

    @property
    def stored(self) -> str:
        """The column of the intermediate parts (dmoe.data.prepare.write.parts) that holds the feature's tokens, or the numbers of its
        buckets. A cross has no column: see Schema.parts_of."""
        if self.part:
            return f"{self.part}:{self.type}"
        if self.bucket:
            return f"number:{self.column or self.name}"
        return f"bag:{self.name}" if self.pooling else f"{self.type}:{self.column or self.name}"
