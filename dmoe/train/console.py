"""What a run says while it runs: lines on rank 0's screen, metrics.jsonl, TensorBoard."""

import math
import sys
import time
from typing import Any

from dmoe.checkpoint.progress import Progress
from dmoe.distributed import rank
from dmoe.json_text import defined
from dmoe.names import show
from dmoe.train.run.run_dir import RunDir

SCALARS = ["auc", "logloss", "ne", "calibration", "cec", "effective_experts"]


class Reporter:
    """Tells rank 0's listeners; on other ranks it does nothing."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.board: Any = None
        if rank() == 0 and "://" not in run.path:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(run.file("tensorboard"))

    def say(self, line: str) -> None:
        if rank() == 0:
            show(line, sys.stderr)

    def begin(self, total_steps: int, step: int) -> None:
        self.total, self.first, self.began = total_steps, step, time.perf_counter()

    def trained(self, progress: Progress, figures: dict[str, Any]) -> None:
        self.run.log("train", {"step": progress.step, "epoch": progress.epoch, **defined(figures)})
        done = progress.step - self.first
        left = (time.perf_counter() - self.began) / max(done, 1) * (self.total - progress.step)
        self.say(
            f"step {progress.step:,}/{self.total:,}  loss {figures['loss']:.4f}  cec {figures['cec_batch']:.3f}"
            f"  {figures['samples_per_second']:,.0f} samples/s  eta {clock(left)}"
        )
        if self.board:
            for name, value in figures.items():
                if isinstance(value, float) and math.isfinite(value):
                    self.board.add_scalar(f"train/{name}", value, progress.step)

    def validated(self, progress: Progress, figures: dict[str, Any]) -> None:
        self.run.log("validation", {"step": progress.step, "epoch": progress.epoch, **figures})
        self.say(f"validation at step {progress.step:,}: {headline(figures)}")
        if self.board:
            for name in SCALARS:
                if figures[name] is not None:
                    self.board.add_scalar(f"validation/{name}", figures[name], progress.step)
            self.board.add_figure("validation/cec_matrix", cec_figure(figures["cec_matrix"]), progress.step)
            self.board.flush()

    def close(self) -> None:
        if self.board:
            self.board.close()


def headline(figures: dict[str, Any]) -> str:
    """The figures that a person looks at first."""
    auc = "none (one label only)" if figures["auc"] is None else f"{figures['auc']:.5f} (+-{figures['auc_error_bound']:.1e})"
    calibration = "-" if figures["calibration"] is None else f"{figures['calibration']:.3f}"
    ne = "-" if figures["ne"] is None else f"{figures['ne']:.4f}"
    floor = "-" if figures["cec_floor"] is None else f"{figures['cec_floor']:.4f}"
    gauc = f"  GAUC {figures['gauc']:.5f} ({figures['gauc_groups']:,} groups)" if figures.get("gauc") is not None else ""
    return (
        f"AUC {auc}  logloss {figures['logloss']:.5f}  NE {ne}  calibration {calibration}  CEC {figures['cec']:.4f} (floor {floor}){gauc}"
    )


def cec_figure(matrix: list[list[float]]) -> Any:
    """The CEC matrix as a heat-map (a matplotlib Figure)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 2 + 0.5 * len(matrix)
    figure = Figure(figsize=(size + 0.6, size))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    for row, line in enumerate(matrix):
        for column, value in enumerate(line):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black", fontsize=8)
    ticks = range(len(matrix))
    axes.set(title="mean |r| between experts", xticks=list(ticks), yticks=list(ticks), xlabel="expert", ylabel="expert")
    figure.colorbar(picture)
    return figure


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
