"""TensorBoard: event files in the run's folder."""

from collections.abc import Mapping
from typing import Any

from dmoe.storage.paths import inside
from dmoe.train.trackers.drawing import correlations
from dmoe.train.trackers.tracker import DRAWING, About, Status, Tracker


class TensorBoardTracker(Tracker):
    """Writes `RUN/tensorboard`; of a remote run nothing, since an event file grows by appending."""

    board: Any = None

    def begin(self, about: About) -> str:
        if "://" not in about.folder:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(inside(about.folder, "tensorboard"))
        return ""

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        if self.board and part != "test":
            for name, value in values.items():
                self.board.add_scalar(f"{part}/{name}", value, step)

    def matrix(self, name: str, values: list[list[float]], step: int) -> None:
        if self.board:
            with DRAWING:
                self.board.add_figure(name, correlations(values), step)
            self.board.flush()

    def end(self, status: Status) -> None:
        if self.board:
            self.board.close()
