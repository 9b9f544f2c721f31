"""Accumulates the training metrics between two lines of the log."""

import math
import time
from typing import Any

import torch
from torch import Tensor

from dmoe.checkpoint.progress import WindowState
from dmoe.distributed import all_reduce_sum, rank, world_size
from dmoe.json_text import defined

NEVER = 1 << 62


class Window:
    """Sums over steps. They stay on the device until a log line is due.

    Args:
        since: the last step before the window.
        kept: `state` of the unfinished window of a run that is resumed.
    """

    def __init__(self, since: int, device: torch.device, kept: WindowState | None = None) -> None:
        self.since, self.steps, self.timed_steps, self.elapsed = since, 0, 0, 0.0
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.first_bad = torch.full((), NEVER, dtype=torch.int64, device=device)
        self.dead: Any = 0
        if kept is not None:
            self.since, self.steps = kept["since"], kept["steps"]
            sums = [math.nan if one is None else one for one in kept["sums"]]
            self.sums += torch.tensor(sums, dtype=torch.float64, device=device)
        self.restart()

    def restart(self) -> None:
        self.began = time.perf_counter()

    def seconds(self) -> float:
        """Seconds since the last call. Waits for the device, so that the time includes all steps."""
        if self.sums.device.type == "cuda":
            torch.cuda.synchronize(self.sums.device)
        now = time.perf_counter()
        passed, self.began = now - self.began, now
        self.elapsed += passed
        return passed

    def add(self, losses: Any) -> None:
        self.steps, self.timed_steps = self.steps + 1, self.timed_steps + 1
        self.sums += torch.stack([losses.bce.double(), losses.correlation.double(), losses.cec_batch.double(), losses.rows])
        bad = torch.where(torch.isfinite(losses.bce), NEVER, self.since + self.steps)
        self.first_bad = torch.minimum(self.first_bad, bad)
        self.dead = losses.dead

    def state(self) -> WindowState:
        """The state for a checkpoint, equal on all ranks. Every rank must call it."""
        sums = all_reduce_sum(self.sums.clone()) / world_size()
        return {"since": self.since, "steps": self.steps, "sums": defined(sums.tolist())}

    def where_bad(self) -> tuple[int, int] | None:
        """(step, rank) of the first loss that is not finite; None if there is none. Every rank must call it."""
        code = torch.where(self.first_bad == NEVER, NEVER, self.first_bad * world_size() + rank())
        if world_size() > 1:
            torch.distributed.all_reduce(code, torch.distributed.ReduceOp.MIN)
        return None if int(code) == NEVER else divmod(int(code), world_size())

    def close(self, norms: dict[str, Tensor] | None) -> dict[str, Any]:
        """The means over steps and ranks. `gradient_ratio` is |d(correlation)| / |d(task)| at the outputs of the experts, without alpha."""
        zero = torch.zeros((), device=self.sums.device)
        squares = torch.stack([(norms or {}).get(name, zero).double() for name in ("task", "correlation")])
        totals = all_reduce_sum(torch.cat([self.sums, squares]))
        bce, correlation, cec, rows = (totals[:4] / world_size() / self.steps).tolist()
        task, from_correlation = totals[4:].sqrt().tolist()
        return {
            "loss": bce,
            "correlation_loss": correlation,
            "cec_batch": cec,
            "cec_batch_floor": math.sqrt(2 / (math.pi * max(rows - 1, 1))),
            "dead_dims": int(self.dead),
            "gradient_ratio": from_correlation / task if task else None,
            "samples_per_second": rows * self.timed_steps / max(self.elapsed, 1e-9),
        }
