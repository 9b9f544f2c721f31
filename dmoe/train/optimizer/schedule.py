"""The learning-rate factor of a step: warm-up, decay, and a drop when the validation AUC or logloss stops improving."""

import math
from dataclasses import dataclass

from dmoe.checkpoint.progress import ScheduleState
from dmoe.config.sections import ScheduleConfig


@dataclass
class Schedule:
    """The factor of step s: min(1, (s + 1) / warmup) * decay(s) * plateau.

    Args:
        total_steps: steps of the run. The decay ends there, unless the config gives decay_steps.
    """

    config: ScheduleConfig
    total_steps: int
    plateau: float = 1.0
    best: float = -math.inf
    waited: int = 0

    def factor(self, step: int) -> float:
        warm = self.config.warmup_steps
        if step < warm:
            return (step + 1) / warm * self.plateau
        span = self.config.decay_steps or max(self.total_steps - warm, 1)
        done = min((step - warm) / span, 1.0)
        shape = {"none": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.config.decay]
        low = self.config.min_factor
        return (low + (1 - low) * shape if self.config.decay != "none" else 1.0) * self.plateau

    def validated(self, score: float) -> None:
        """Takes the score of a validation: its AUC, or minus its logloss if it has no AUC. Drops the factor if the score has not improved
        for more than `plateau_patience` validations."""
        if score > self.best:
            self.best, self.waited = score, 0
        elif self.config.plateau_factor < 1:
            self.waited += 1
            if self.waited > self.config.plateau_patience:
                self.plateau, self.waited = self.plateau * self.config.plateau_factor, 0

    def state(self) -> ScheduleState:
        return {"plateau": self.plateau, "waited": self.waited, "best": None if math.isinf(self.best) else self.best}

    def load_state(self, state: ScheduleState) -> None:
        self.plateau, self.waited = float(state["plateau"]), int(state["waited"])
        self.best = -math.inf if state["best"] is None else float(state["best"])
