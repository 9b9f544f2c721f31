"""A trace of some steps of every rank, for Perfetto (https://ui.perfetto.dev), chrome://tracing or TensorBoard."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from dmoe.errors import UserError
from dmoe.paths import PATHS, inside, join, write_atomic


def parse_window(text: str) -> tuple[int, int]:
    """`FIRST:STEPS` as numbers; steps count from 1, over resumed runs too.

    Raises:
        UserError: something else.
    """
    first, _, steps = text.partition(":")
    if not (first.isdecimal() and steps.isdecimal() and int(first) and int(steps)):
        raise UserError(f"--trace {text}: expected FIRST:STEPS, two whole numbers from 1, such as 20:5 for the steps 20 to 24")
    return int(first), int(steps)


class Trace:
    """Records a window of steps and writes `folder/trace/rank-R.pt.trace.json`; inert without a window. TensorBoard knows a trace by
    such a name.

    Args:
        window: the first step and how many, or None.
        folder: of the run.
        rank: whose file it is.
    """

    def __init__(self, window: tuple[int, int] | None, folder: str, rank: int) -> None:
        self.window, self.folder, self.rank = window, inside(folder, "trace"), rank
        self.path = join(self.folder, f"rank-{rank}.pt.trace.json")
        self._profiler: Any = None

    def step(self, done: int) -> None:
        """To be called before every step, with the number of those that are done."""
        if self.window is None:
            return
        first, steps = self.window
        if self._profiler is not None and done + 1 >= first + steps:
            self.close()
        elif self._profiler is None and first <= done + 1 < first + steps:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
                # What the device has still to do of earlier steps is no part of the window.
                torch.cuda.synchronize()
            else:
                # Else it says on stderr when it starts and when it stops; what it could say of a GPU's tracing is worth reading.
                os.environ.setdefault("KINETO_LOG_LEVEL", "6")
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()

    def close(self) -> None:
        """Writes what was recorded; the loop calls it before a validation too, which ends the window there at the latest."""
        if self._profiler is None:
            return
        profiler, self._profiler, self.window = self._profiler, None, None
        profiler.stop()
        PATHS.mkdirs(self.folder)
        # The profiler writes to local files only, and a run may be kept elsewhere.
        with tempfile.TemporaryDirectory() as local:
            name = Path(local) / "trace.json"
            profiler.export_chrome_trace(str(name))
            with name.open("rb") as source, write_atomic(self.path, sync=False) as target:
                shutil.copyfileobj(source, target)
