"""Where a run stands: all that a checkpoint keeps beside the tensors."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from dmoe.errors import UserError

Count = Annotated[int, Field(ge=0, lt=1 << 62)]


@dataclass
class Progress:
    """Plain data.

    Random state is not among it because there is none: dropout's draws, the order of rows and the initial weights are functions of
    seed, step and position.

    Attributes:
        row: how many rows of the epoch are used up.
        order: names the order of rows that `row` counts in (`Reader.order`).
        due: the validation of this row has not been made yet.
        steps_before: steps behind step 0, of the runs whose checkpoint this one began from: Adam's bias correction counts them.
        window: sums of the figures since the last line of the log (`Window.state`).
    """

    # Read by pydantic when a checkpoint's progress is checked.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    step: Count = 0
    steps_before: Count = 0
    epoch: Count = 0
    row: Count = 0
    batch_size: Count = 0
    order: str = ""
    due: bool = False
    best_auc: float | None = None
    best_step: Count | None = None
    waited: Count = 0
    trained_rows: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    schedule: dict[str, float | int | None] = field(default_factory=dict)
    window: dict[str, int | list[float]] | None = None


def progress_from(kept: dict[str, Any], where: str) -> Progress:
    """The progress that a checkpoint kept.

    Raises:
        UserError: a field is missing or is not what it should be.
    """
    try:
        # By way of JSON: strict for every field, where from Python objects it would want a Progress.
        progress = TypeAdapter(Progress).validate_json(json.dumps(kept))
        if set(progress.schedule) != {"plateau", "waited", "best"} or "step" not in kept:
            raise UserError(f"{where}: progress: a part of it is missing")
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: progress.{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}") from None
    return progress
