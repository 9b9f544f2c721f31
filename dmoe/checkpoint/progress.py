"""The progress of a run: everything that a checkpoint keeps in addition to the tensors."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from dmoe.config.strict import checked
from dmoe.errors import UserError
from dmoe.json_text import format_json

Count = Annotated[int, Field(ge=0, lt=1 << 62)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@with_config(_STRICT)
class ScheduleState(TypedDict, total=False):
    """The result of `Schedule.state`. `best` is null before the first validation with a score."""

    plateau: Annotated[float, Field(gt=0, le=1)]
    waited: Count
    best: float | None


@with_config(_STRICT)
class WindowState(TypedDict):
    """The result of `Window.state`."""

    since: Count
    steps: Count
    sums: Annotated[list[float | None], Field(min_length=4, max_length=4)]


@with_config(_STRICT)
class OnlineState(TypedDict):
    """The state of an online run: the number of finished windows, the length of its ledger and the SHA-256 of these bytes, and the folder
    of the vocabulary, which names the token of each row of the tables."""

    window: Count
    ledger_bytes: Count
    ledger_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    vocabulary: Annotated[str, Field(pattern=r"^[0-9]{6,12}$|^$")]


@dataclass
class Progress:
    """The progress as plain data.

    It holds no random state: dropout, the order of rows and the initial weights depend only on seed, step and position.

    Attributes:
        row: number of rows of the epoch that were used.
        order: name of the order of rows in which `row` counts (`Reader.order`).
        due: whether the validation at this row has not been made yet.
        steps_before: steps of the earlier runs from whose checkpoints this run began; Adam's bias correction counts them.
        best_auc: of the best validation; None before the first one, and while all validation rows have the same label.
        best_logloss: of the best validation, if it has no AUC.
        window: sums of the metrics since the last log line (`Window.state`).
        online: for a run of `dmoe online`.
    """

    # pydantic reads this when the progress of a checkpoint is checked.
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
        """Records a validation of this step. It is the best if its AUC is higher, or, without an AUC, if its logloss is lower."""
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
    """The progress of a checkpoint. Fields that an older version did not write get defaults.

    Raises:
        UserError: a field is wrong, or refers to more steps than the checkpoint has.
    """
    # Converted through JSON, because strict validation of Python objects would require a Progress.
    progress = checked(_KEPT.validate_json, format_json({"progress": kept}), where)["progress"]
    for name in ("best_step", "epoch"):
        if (getattr(progress, name) or 0) > progress.step:
            raise UserError(f"{where}: progress.{name} is {getattr(progress, name):,}, but the checkpoint is of step {progress.step:,}")
    return progress


def progress_from(kept: dict[str, Any], where: str) -> Progress:
    """As `check_progress`, for a run that is resumed.

    Raises:
        UserError: a field is missing or wrong.
    """
    progress = check_progress(kept, where)
    if set(progress.schedule) != {"plateau", "waited", "best"} or "step" not in kept:
        raise UserError(f"{where}: progress: a part of it is missing")
    return progress
