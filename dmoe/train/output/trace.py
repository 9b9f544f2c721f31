"""Records a trace of some steps on every rank, for Perfetto (https://ui.perfetto.dev), chrome://tracing or TensorBoard."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from dmoe.errors import UserError
from dmoe.storage.paths import PATHS, inside, join, write_atomic


def parse_window(text: str) -> tuple[int, int]:
    """Parses `FIRST:STEPS`. Steps count from 1, also in a resumed run.

    Raises:
        UserError: the text has another form.
    """
    first, _, steps = text.partition(":")
    if not (first.isdecimal() and steps.isdecimal() and int(first) and int(steps)):
        raise UserError(f"--trace {text}: expected FIRST:STEPS, two whole numbers from 1, such as 20:5 for the steps 20 to 24")
    return int(first), int(steps)


class Trace:
    """Records a window of steps to `folder/trace/rank-R.pt.trace.json`, a name that TensorBoard recognises. Does nothing without a window.

    Args:
        window: (first step, number of steps), or None.
        folder: the run directory.
        rank: of this process.
    """

    def __init__(self, window: tuple[int, int] | None, folder: str, rank: int) -> None:
        self.window, self.folder, self.rank = window, inside(folder, "trace"), rank
        self.path = join(self.folder, f"rank-{rank}.pt.trace.json")
        self._profiler: Any = None

    def step(self, done: int) -> None:
        """Call it before every step, with the number of finished steps."""
        if self.window is None:
            return
        first, steps = self.window
        if self._profiler is not None and done + 1 >= first + steps:
            self.close()
        elif self._profiler is None and first <= done + 1 < first + steps:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
                # Wait for kernels of earlier steps, which do not belong to the window.
                torch.cuda.synchronize()
            else:
                # Suppresses the messages on stderr at start and stop. With a GPU they may be important.
                os.environ.setdefault("KINETO_LOG_LEVEL", "6")
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()

    def close(self) -> None:
        """Ends the window and writes the trace. The loop calls it before each validation, so a window ends there at the latest."""
        if self._profiler is None:
            return
        profiler, self._profiler, self.window = self._profiler, None, None
        profiler.stop()
        PATHS.mkdirs(self.folder)
        # The profiler can only write local files, but the run directory may be remote.
        with tempfile.TemporaryDirectory() as local:
            name = Path(local) / "trace.json"
            profiler.export_chrome_trace(str(name))
            with name.open("rb") as source, write_atomic(self.path, sync=False) as target:
                shutil.copyfileobj(source, target)
