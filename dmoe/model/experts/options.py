"""Types of the experts' options. Their ranges are checked by `build_expert`, so that a block's constructor stays short."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1, le=1 << 20)]
Layers = Annotated[int, Field(ge=1, le=256)]
Widths = Annotated[Sequence[Count], Field(min_length=1, max_length=4096)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["relu", "silu"]
