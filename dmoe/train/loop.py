"""The training loop: epochs in segments that end with a validation, every step a function of the config and the position alone."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dmoe.data.batch import Batch
from dmoe.data.reader import Reader
from dmoe.distributed import all_reduce_sum, rank, world_size
from dmoe.errors import UserError
from dmoe.train.checkpoint.load import load_checkpoint
from dmoe.train.checkpoint.save import save_checkpoint
from dmoe.train.evaluate import evaluate
from dmoe.train.guard import Guard
from dmoe.train.moved import TablesMoved
from dmoe.train.report import Reporter
from dmoe.train.run_dir import RunDir
from dmoe.train.schedule import Schedule
from dmoe.train.session import Session


@dataclass
class Progress:
    """Where a run stands; all that a checkpoint keeps beside the tensors. `row` counts rows of the epoch that were used up."""

    step: int = 0
    epoch: int = 0
    row: int = 0
    best_auc: float | None = None
    best_step: int | None = None
    waited: int = 0
    trained_rows: int = 0
    seconds: float = 0.0
    schedule: dict[str, Any] = field(default_factory=dict)


def fit(session: Session, run: RunDir, reporter: Reporter, resume_step: int | None) -> Progress:
    """Trains to the end, to early stopping, or to `max_steps`; keeps the best checkpoint.

    Returns:
        The progress; `best_step` names the checkpoint with the best validation AUC.
    """
    config = session.config
    train = session.reader(config.data.train_split, shuffled=True)
    validation = session.reader(config.data.validation_split)
    per_epoch = train.steps(config.train.batch_size)
    total = min(per_epoch * config.train.epochs, config.train.max_steps or math.inf)
    schedule = Schedule(config.optimizer.schedule, int(total))
    progress = Progress()
    if resume_step is not None:
        kept = load_checkpoint(run.checkpoint(resume_step), session.sharded, session.tables, session.dense, session.optimizers)
        progress = Progress(**kept)
        schedule.load_state(progress.schedule)
    split = session.manifest.split(config.data.train_split)
    guard = Guard(config.train.guard, split.positives / split.rows)
    reporter.begin(int(total), progress.step)
    moved = TablesMoved(session.sharded, session.tables)
    while progress.step < total and not _waited_enough(session, progress):
        _segment(session, run, reporter, train, progress, schedule, guard, moved, _segment_end(session, train, progress, int(total)))
        if progress.row >= train.rows:
            progress.epoch, progress.row = progress.epoch + 1, 0
        figures = evaluate(session, validation)
        reporter.validated(progress, figures)
        guard.check_auc(progress.step, figures["auc"])
        auc = -math.inf if figures["auc"] is None else figures["auc"]
        schedule.validated(auc)
        if progress.best_auc is None or auc > progress.best_auc:
            progress.best_auc, progress.best_step, progress.waited = auc, progress.step, 0
        else:
            progress.waited += 1
        _save(session, run, progress, schedule)
    return progress


def _waited_enough(session: Session, progress: Progress) -> bool:
    patience = session.config.train.early_stopping
    return patience is not None and progress.waited >= patience


def _segment_end(session: Session, train: Reader, progress: Progress, total: int) -> int:
    """The row of the epoch at which the next validation is due, on a batch's border; less where `max_steps` comes first."""
    config = session.config.train
    steps = train.steps(config.batch_size)
    parts = min(config.validations_per_epoch, steps)
    ends = [round(steps * (index + 1) / parts) * config.batch_size for index in range(parts)]
    end = next(end for end in ends if end > progress.row)
    return min(end, progress.row + (total - progress.step) * config.batch_size)


def _segment(
    session: Session,
    run: RunDir,
    reporter: Reporter,
    train: Reader,
    progress: Progress,
    schedule: Schedule,
    guard: Guard,
    moved: TablesMoved,
    end: int,
) -> None:
    """Trains from the progress's row up to row `end` of the epoch, and leaves the pipeline drained."""
    config = session.config
    batch_size, every = config.train.batch_size, config.train.log_every
    steps = -(-(end - progress.row) // batch_size)
    batches: Iterator[Batch] = train.batches(batch_size, rank(), world_size(), progress.epoch, progress.row, steps)
    window = _Window(progress.step, session.device)
    session.sharded.train()
    for _ in range(steps):
        logged = (progress.step + 1) % every == 0
        norms: dict[str, Tensor] | None = {} if logged else None
        session.task.watch_gradients(norms)
        session.optimizers.set_factor(schedule.factor(progress.step))
        warm = config.correlation.warmup_steps
        session.task.objective.alpha_factor = min(1.0, (progress.step + 1) / warm) if warm else 1.0
        # Dropout's draws are a function of seed, step and rank: a resumed run draws what the undisturbed one would have drawn.
        torch.manual_seed((config.train.seed << 32) ^ (progress.step * 4096 + rank()))
        losses, *_ = session.pipeline.progress(batches)
        window.add(losses)
        progress.step += 1
        rows = min(batch_size, train.rows - progress.row)
        progress.row, progress.trained_rows = progress.row + rows, progress.trained_rows + rows
        if logged:
            progress.seconds += window.seconds()
            figures = window.close(norms)
            guard.check_loss(progress.step, figures["loss"], window.since)
            moved.check()
            reporter.trained(progress, figures | {"lr_factor": session.optimizers.factor})
            window = _Window(progress.step, session.device)
        if config.train.checkpoint.every_steps and progress.step % config.train.checkpoint.every_steps == 0:
            progress.seconds += window.seconds()
            _save(session, run, progress, schedule)
            window.restart()
    progress.seconds += window.seconds()
    if window.steps:
        guard.check_loss(progress.step, window.close(None)["loss"], window.since)
    session.task.watch_gradients(None)


def _save(session: Session, run: RunDir, progress: Progress, schedule: Schedule) -> None:
    progress.schedule = schedule.state()
    save_checkpoint(run.checkpoint(progress.step), session.sharded, session.tables, session.dense, session.optimizers, vars(progress))
    run.prune(session.config.train.checkpoint.keep, progress.best_step)


class _Window:
    """Sums over the steps between two log lines, left on the device until the line is due."""

    def __init__(self, since: int, device: torch.device) -> None:
        self.since, self.steps, self.rows = since, 0, 0.0
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.restart()

    def restart(self) -> None:
        self.began = time.perf_counter()

    def seconds(self) -> float:
        """Since the last call."""
        now = time.perf_counter()
        passed, self.began = now - self.began, now
        self.elapsed = getattr(self, "elapsed", 0.0) + passed
        return passed

    def add(self, losses: Any) -> None:
        self.steps += 1
        self.sums += torch.stack([losses.bce.double(), losses.correlation.double(), losses.cec_batch.double(), losses.rows])
        self.dead = losses.dead

    def close(self, norms: dict[str, Tensor] | None) -> dict[str, Any]:
        """Means over steps and ranks. `gradient_ratio` is |d(correlation)| / |d(task)| at the experts' outputs, before alpha."""
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
            "samples_per_second": rows * self.steps / max(getattr(self, "elapsed", 0.0), 1e-9),
        }


def restore_best(session: Session, run: RunDir, progress: Progress) -> None:
    """Loads the weights of the best validation."""
    if progress.best_step is None:
        raise UserError("the run made no validation, so there is no best checkpoint; train at least one step")
    load_checkpoint(run.checkpoint(progress.best_step), session.sharded, session.tables, session.dense, None)
