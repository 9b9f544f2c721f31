"""Stops a run that has gone wrong in the ways that users report, with what to try (dlrm issues 393, 395, 342)."""

import math
from collections.abc import Callable

from dmoe.errors import UserError
from dmoe.metrics.evaluation import entropy_of
from dmoe.sections import GuardConfig

LEARNING_RATES = (
    "--resume goes on from the last checkpoint, which is from before it; try a lower optimizer.dense.lr and optimizer.tables.lr,"
    " optimizer.dense.clip_norm=1, or optimizer.schedule.warmup_steps"
)


class Stopped(UserError):
    """A guard stopped the run, on all ranks at the same step."""


class Guard:
    """Judges figures that are equal on all ranks, so that all stop together.

    Args:
        base_rate: share of positives among the training rows.
    """

    def __init__(self, config: GuardConfig, base_rate: float) -> None:
        self.config, self.base_rate = config, base_rate

    def check_loss(
        self,
        step: int,
        loss: float,
        since_step: int,
        first_bad: tuple[int, int] | None = None,
        reason: Callable[[], str] = str,
    ) -> None:
        """Judges the mean training loss of steps (since_step, step].

        Args:
            first_bad: the step and rank at which the loss was first not finite, where that is known.
            reason: gives the likely one, empty where none is known; called where the run is stopped, on all ranks.

        Raises:
            Stopped: not finite, or worse than always predicting the base rate.
        """
        if not self.config.enabled:
            return
        if not math.isfinite(loss):
            when = f"at step {first_bad[0]} on rank {first_bad[1]}" if first_bad else f"in the last {step - since_step} steps"
            raise Stopped(f"stopped at step {step}: the loss is not finite. Something overflowed {when}: {reason() or LEARNING_RATES}")
        worst = entropy_of(self.base_rate) * self.config.max_loss_ratio
        if since_step >= self.config.after_steps and loss > worst:
            raise Stopped(
                f"stopped at step {step}: the mean loss is {loss:.4f}, worse than {entropy_of(self.base_rate):.4f}, which always"
                f" predicting the base rate of {self.base_rate:.4f} gives: {reason() or 'try a lower learning rate or a longer warm-up'};"
                " train.guard.enabled=false goes on regardless"
            )

    def check_auc(self, step: int, auc: float | None, reason: Callable[[], str] = str) -> None:
        """Judges a validation's AUC, where it has one.

        Args:
            reason: as of `check_loss`.

        Raises:
            Stopped: stuck at chance.
        """
        if not self.config.enabled or step < self.config.after_steps or auc is None:
            return
        if auc < self.config.min_auc:
            advice = reason() or (
                "check that labels and features belong together (a shuffled column?), that ids are not all missing or rare (a lower"
                " preprocess --min-count), and the learning rates"
            )
            raise Stopped(
                f"stopped at step {step}: the validation AUC is {auc:.4f}, which is chance: {advice}; train.guard.enabled=false goes on"
                " regardless"
            )
