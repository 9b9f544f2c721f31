"""Types of the options of experts. `build_expert` checks their ranges, so the constructors of experts need not."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1, le=1 << 20)]
Layers = Annotated[int, Field(ge=1, le=256)]
Widths = Annotated[Sequence[Count], Field(min_length=1, max_length=4096)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["relu", "silu"]
