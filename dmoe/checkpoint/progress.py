"""Where a run stands: all that a checkpoint keeps beside the tensors."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from dmoe.errors import UserError
from dmoe.json_text import format_json
from dmoe.strict import checked

Count = Annotated[int, Field(ge=0, lt=1 << 62)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@with_config(_STRICT)
class ScheduleState(TypedDict, total=False):
    """What `Schedule.state` gives; `best` is null before the first validation that had an AUC."""

    plateau: Annotated[float, Field(gt=0, le=1)]
    waited: Count
    best: float | None


@with_config(_STRICT)
class WindowState(TypedDict):
    """What `Window.state` gives."""

    since: Count
    steps: Count
    sums: Annotated[list[float | None], Field(min_length=4, max_length=4)]


@with_config(_STRICT)
class OnlineState(TypedDict):
    """Of a run over windows: how many are done, the bytes of its ledger that say so and their SHA-256, and the folder that tells which
    token each row of the tables is for."""

    window: Count
    ledger_bytes: Count
    ledger_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    vocabulary: Annotated[str, Field(pattern=r"^[0-9]{6,12}$|^$")]


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
        best_auc: of the best validation; None before the first one, and while the validation rows have one label only.
        best_logloss: of the best validation where it has no AUC.
        window: sums of the figures since the last line of the log (`Window.state`).
        online: of a run over windows of a log that grows.
    """

    # Read by pydantic when a checkpoint's progress is checked.
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    step: Count = 0
    steps_before: Count = 0
    epoch: Count = 0
    row: Count = 0
    batch_size: Count = 0
    order: str = ""
    due: bool = False
    best_auc: float | None = None
    best_logloss: float | None = None
    best_step: Count | None = None
    waited: Count = 0
    trained_rows: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    schedule: ScheduleState = field(default_factory=ScheduleState)
    window: WindowState | None = None
    online: OnlineState | None = None

    def validated(self, auc: float | None, logloss: float) -> None:
        """Takes note of a validation of this step. A higher AUC is better; a lower logloss is, where no AUC is defined."""
        if auc is None and self.best_auc is None:
            better = self.best_logloss is None or logloss < self.best_logloss
        else:
            better = self.best_auc is None or (auc is not None and auc > self.best_auc)
        if better:
            self.best_auc, self.best_logloss = auc, logloss if auc is None else None
            self.best_step, self.waited = self.step, 0
        else:
            self.waited += 1


class _Kept(TypedDict):
    progress: Progress


_KEPT = TypeAdapter(_Kept)


def check_progress(kept: Any, where: str) -> Progress:
    """The progress that a checkpoint kept; defaults for the fields that an older dmoe did not keep.

    Raises:
        UserError: a field is not what it should be, or it tells of more steps than there were.
    """
    # By way of JSON: strict for every field, where from Python objects it would want a Progress.
    progress = checked(_KEPT.validate_json, format_json({"progress": kept}), where)["progress"]
    for name in ("best_step", "epoch"):
        if (getattr(progress, name) or 0) > progress.step:
            raise UserError(f"{where}: progress.{name} is {getattr(progress, name):,}, but the checkpoint is of step {progress.step:,}")
    return progress


def progress_from(kept: dict[str, Any], where: str) -> Progress:
    """As `check_progress`, of a run that is to go on.

    Raises:
        UserError: a field is missing or is not what it should be.
    """
    progress = check_progress(kept, where)
    if set(progress.schedule) != {"plateau", "waited", "best"} or "step" not in kept:
        raise UserError(f"{where}: progress: a part of it is missing")
    return progress
