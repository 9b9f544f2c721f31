"""Stops a run that fails in one of the ways that users often report (dlrm issues 393, 395, 342), and suggests what to try."""

import math
from collections.abc import Callable

from dmoe.config.sections import GuardConfig
from dmoe.errors import UserError
from dmoe.metrics.evaluation import entropy_of

LEARNING_RATES = (
    "try a lower optimizer.dense.lr and optimizer.tables.lr, optimizer.dense.clip_norm=1, or optimizer.schedule.warmup_steps; --resume"
    " continues from the last checkpoint, which was written before"
)


class Stopped(UserError):
    """The guard stopped the run, on all ranks at the same step."""


class Guard:
    """Checks the loss and the AUC. They are equal on all ranks, so all ranks stop together.

    Args:
        base_rate: share of positives in the training rows.
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
        """Checks the mean training loss of the steps (since_step, step].

        Args:
            first_bad: (step, rank) of the first loss that was not finite, if known.
            reason: returns the likely reason, or an empty text. Called on all ranks if the run is stopped.

        Raises:
            Stopped: the loss is not finite, or worse than that of always predicting the base rate.
        """
        if not self.config.enabled:
            return
        if not math.isfinite(loss):
            when = f"at step {first_bad[0]} on rank {first_bad[1]}" if first_bad else f"in the last {step - since_step} steps"
            raise Stopped(f"stopped at step {step}: the loss is not finite; a number overflowed {when}: {reason() or LEARNING_RATES}")
        worst = entropy_of(self.base_rate) * self.config.max_loss_ratio
        if since_step >= self.config.after_steps and loss > worst:
            raise Stopped(
                f"stopped at step {step}: the mean loss is {loss:.4f}; to always predict the base rate of {self.base_rate:.4f} would give"
                f" {entropy_of(self.base_rate):.4f}: {reason() or 'try a lower learning rate or a longer warm-up'};"
                " train.guard.enabled=false switches this check off"
            )

    def check_auc(self, step: int, auc: float | None, reason: Callable[[], str] = str) -> None:
        """Checks the AUC of a validation, if it has one.

        Args:
            reason: see `check_loss`.

        Raises:
            Stopped: the AUC is not above chance.
        """
        if not self.config.enabled or step < self.config.after_steps or auc is None:
            return
        if auc < self.config.min_auc:
            advice = reason() or (
                "check that each row has its own label and features (is a column shuffled?), that ids are not all missing or rare (lower"
                " --min-count of dmoe preprocess), and the learning rates"
            )
            raise Stopped(
                f"stopped at step {step}: the validation AUC is {auc:.4f}, not above chance: {advice}; train.guard.enabled=false switches"
                " this check off"
            )
