"""What a run says while it runs: lines on rank 0's screen, metrics.jsonl, trackers."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from dmoe.checkpoint.progress import Progress as Position
from dmoe.config.config import Config
from dmoe.data.progress import Progress, memory_mb
from dmoe.distributed import rank
from dmoe.json_text import defined
from dmoe.processes.alive import resume
from dmoe.storage.paths import write_text
from dmoe.terminal import tell
from dmoe.train.elastic.exit_codes import Preempted
from dmoe.train.run.run_dir import RunDir, flat
from dmoe.train.trackers.tracker import About
from dmoe.train.trackers.trackers import KINDS, Trackers

SCALARS = ["auc", "logloss", "ne", "calibration", "cec", "effective_experts"]
PAGE = "report.html"
KEPT = ["config.yaml", "plan.json", "environment.json", "metrics.json", "metrics.jsonl"]
"""Files of a finished run that trackers keep copies of."""


class Reporter:
    """Tells rank 0's listeners; on other ranks it does nothing. As a context, it ends the trackers however the run ends."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.trackers: Trackers | None = None
        self.bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.bar:
            self.bar.close()
        if self.trackers:
            resume("waits for its trackers")
            stopped = isinstance(error, Preempted | KeyboardInterrupt)
            self.trackers.end("finished" if error is None else "stopped" if stopped else "failed")

    def track(self, config: Config, resumed: bool, changed: Sequence[str] = ()) -> None:
        """Starts the trackers of `run.trackers`.

        Args:
            resumed: the run goes on, and so do its records.
            changed: settings that are not what the run was started with.
        """
        if rank() == 0:
            about = About(self.run.path, config.variant, flat(config.model_dump(mode="json")), changed=changed)
            self.trackers = Trackers(
                about, resumed, {name: KINDS[name]() for name in config.run.trackers}, lambda line: tell(line, "warning")
            )

    def say(self, line: str, event: str = "message", **numbers: Any) -> None:
        if rank() == 0:
            tell(line, event=event, **numbers)

    def begin(self, total_steps: int, step: int, rows: int = 0) -> None:
        """The steps begin; `rows` are to be trained on until the last one, on all ranks."""
        self.total, self.first, self.began = total_steps, step, time.perf_counter()
        # Where nobody looks, the lines of the log tell.
        self.bar = Progress("train", rows, unit="samples", terminal_only=True) if rank() == 0 and rows else None

    def stepped(self, rows: int) -> None:
        """After each step of so many rows, on all ranks."""
        if self.bar and not self.bar.rows:
            # The first step compiles, and waits for the first batch.
            self.bar.begun(rows)
        elif self.bar:
            self.bar.update(rows)

    def trained(self, progress: Position, figures: dict[str, Any]) -> None:
        where = {"step": progress.step, "epoch": progress.epoch}
        self.run.log("train", where | defined(figures))
        done = progress.step - self.first
        left = (time.perf_counter() - self.began) / max(done, 1) * (self.total - progress.step)
        if self.bar and self.bar.terminal:
            self.bar.note = f"loss {figures['loss']:.4f}"
        else:
            self.say(
                f"step {progress.step:,}/{self.total:,}  loss {figures['loss']:.4f}  cec {figures['cec_batch']:.3f}"
                f"  {figures['samples_per_second']:,.0f} samples/s  eta {clock(left)}",
                "step",
                **where | {"steps": self.total, "seconds_left": left, "memory_mb": memory_mb()} | figures,
            )
        if self.trackers:
            self.trackers.scalars("train", _finite(figures), progress.step)

    def validated(self, progress: Position, figures: dict[str, Any]) -> None:
        where = {"step": progress.step, "epoch": progress.epoch}
        self.run.log("validation", where | figures)
        self.say(f"validation at step {progress.step:,}: {headline(figures)}", "validation", **where, **numbers_of(figures))
        if self.trackers:
            self.trackers.scalars("validation", _finite({name: figures[name] for name in SCALARS}), progress.step)
            self.trackers.matrix("validation/cec_matrix", figures["cec_matrix"], progress.step)

    def tested(self, step: int, figures: dict[str, Any]) -> None:
        """Writes the final figures, of the checkpoint of that step."""
        self.run.finish(figures)
        self.say(f"test of step {step:,}: {headline(figures)}", "test", **({"step": step} | numbers_of(figures)))
        self.say(f"run kept in {self.run.path}")
        if self.trackers:
            self.trackers.scalars("test", _finite(figures), step)

    def keep_files(self, page: Callable[[str], str] | None) -> None:
        """Gives the trackers that keep files the run's own, and a page on the run.

        Args:
            page: makes the page's HTML of the run's folder.
        """
        if self.trackers and self.trackers.keep_files:
            names = list(KEPT)
            if page:
                try:
                    write_text(self.run.file(PAGE), page(self.run.path))
                    names.append(PAGE)
                except Exception as error:
                    # The run is finished: a page that cannot be made, or written, is no reason to end it otherwise.
                    self.say(f"run.trackers: get no page: {error}")
            self.trackers.files([self.run.file(name) for name in names])


def _finite(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, float) and math.isfinite(value)}


def numbers_of(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that are one number or none; lists and matrices are in the run's files."""
    return {name: value for name, value in figures.items() if value is None or isinstance(value, int | float)}


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


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
