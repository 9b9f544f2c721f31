"""What a schema says of single columns: the label, the time, numbers and tokens."""

from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dmoe.data.prepare.encode.times import parse_format
from dmoe.strict import FeatureName, Strict, Text


class Label(Strict):
    """0 or 1 in `column`; where `positive` is given, that value is 1 and every other value is 0.

    Attributes:
        positive: compared as a number with a number (1 is 1.0), as a boolean with a boolean (true is True), else as text.
    """

    column: str = Field(min_length=1)
    positive: str | None = Field(None, min_length=1)

    @field_validator("positive", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """YAML's own numbers and booleans, which people write without quotes."""
        return str(value).lower() if isinstance(value, bool | int | float) else value


class Time(Strict):
    """`format`: of strptime (dmoe.data.prepare.encode.times); `unix` seconds; `unix_ms`; a bare number, which only orders, where absent.
    Times are UTC, unless the format has %z."""

    column: str = Field(min_length=1)
    format: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_read_whole(self) -> "Time":
        if self.format not in (None, "unix", "unix_ms"):
            parse_format(self.format)
        return self


class Dense(Strict):
    """A number. `log1p` is sign(x) * ln(1 + |x|); `standardise` subtracts the train split's mean and divides by its deviation. A
    missing number becomes 0.0 after the transform. With `type: int` every other text than an integer of 32 bits is malformed."""

    name: FeatureName
    column: str = ""
    type: Literal["float", "int"] = "float"
    transform: Literal["none", "log1p", "standardise"] = "none"

    @property
    def stored(self) -> str:
        """The column of a part (dmoe.data.prepare.write.parts) that holds the feature's values."""
        return f"number:{self.column or self.name}"


class Bucket(Strict):
    """How numbers become tokens; one of the three.

    Attributes:
        formula: `log2`: 0 for |v| < 1, else the sign of v times 1 + floor(log2 |v|). `log_squared`, Criteo's: floor(v) for v <= 2, else
            3 + floor(ln(v)^2).
        edges: ascending; a number's bucket is how many of them are at most that number.
        quantiles: about as many buckets of as many train rows each.
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
    """A token, or with `pooling` several: separated in the column by `separator`, or a list of parquet or JSON.

    Attributes:
        type: of the tokens: text; hex, of 1 to 8 digits; or int, of 64 bits. Other texts are malformed. Tokens of equal count get ids in
            the order of their bytes, or of their numbers. Buckets and parts of the time are numbers whatever the type, in that order.
        part: made from the time column instead: its hour (0..23), weekday (0 Sunday .. 6, as strftime's %w) or is_weekend (0, 1).
        bucket: made from a numeric column: the token is its number's bucket.
        cross: made of the tokens of two or more others, features by their names or columns of text (dmoe.data.prepare.tokens.crosses);
            missing where one of them is.
        pooling: how the embeddings of a row's tokens become one.
        max_values: tokens of a row that are kept, the first ones.
        min_count: occurrences in the train split that earn a token its own id; the command's --min-count where absent.
        max_ids: tokens that have an id of their own at most, the most frequent ones; the command's --max-ids where absent.
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
        """The column of a part (dmoe.data.prepare.write.parts) that holds the feature's tokens, or the numbers that its buckets are made
        from. A cross has none: see Schema.parts_of."""
        if self.part:
            return f"{self.part}:{self.type}"
        if self.bucket:
            return f"number:{self.column or self.name}"
        return f"bag:{self.name}" if self.pooling else f"{self.type}:{self.column or self.name}"
