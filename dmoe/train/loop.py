"""The training loop. An epoch consists of segments that end with a validation. A step depends only on the config and the position."""

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial

from torch import Tensor

from dmoe.checkpoint.progress import Progress
from dmoe.checkpoint.save import WeightsNotFinite
from dmoe.checkpoint.writer import CheckpointWriter
from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.reading.reader import Reader
from dmoe.distributed import rank, world_size
from dmoe.errors import UserError
from dmoe.metrics.evaluation import NotFinite
from dmoe.processes.alive import note, pause, resume
from dmoe.train.elastic.exit_codes import Preempted
from dmoe.train.elastic.preemption import Together
from dmoe.train.evaluate import evaluate, shown_of
from dmoe.train.guard import LEARNING_RATES, Guard, Stopped
from dmoe.train.optimizer.schedule import Schedule
from dmoe.train.optimizer.update_check import TablesMoved
from dmoe.train.output.console import Reporter
from dmoe.train.output.log_window import Window
from dmoe.train.output.trace import Trace
from dmoe.train.overflow import MOST_BATCHES, likely_reason
from dmoe.train.run.restore import resume_from
from dmoe.train.run.run_dir import RunDir
from dmoe.train.session import Session
from dmoe.train.teacher import Teachers, note_teachers


@dataclass
class Training:
    """The objects that the steps of a run share.

    Attributes:
        first: the step from which this process started or resumed.
        total: the last step of the run.
        teachers: None if the model learns from labels only.
    """

    session: Session
    reporter: Reporter
    train: Reader
    validation: Reader
    progress: Progress
    schedule: Schedule
    guard: Guard
    moved: TablesMoved
    writer: CheckpointWriter
    together: Together
    trace: Trace
    first: int
    total: int
    teachers: Teachers | None


def fit(session: Session, run: RunDir, reporter: Reporter, resume_step: int | None, trace: Trace, steps_before: int = 0) -> Progress:
    """Trains to the end, to early stopping, or to `max_steps`; keeps the best checkpoint.

    Args:
        steps_before: result of `begin_from`, for a run that is not resumed.

    Returns:
        The progress; `best_step` is the step of the checkpoint with the best validation AUC.

    Raises:
        Preempted: on all ranks after the same step, when its checkpoint is published.
        UserError: a problem with the data or the disk, or the guard stopped the run.
    """
    config = session.config
    train = session.reader(config.data.train_split, shuffled=True, plain=config.distill.on)
    validation = session.reader(config.data.validation_split)
    total = int(min(train.steps(config.train.batch_size) * config.train.epochs, config.train.max_steps or math.inf))
    schedule = Schedule(config.optimizer.schedule, total)
    progress = Progress(batch_size=config.train.batch_size, order=train.order, steps_before=steps_before)
    if resume_step is not None:
        note("loads the checkpoint", resume_step)
        progress = resume_from(session, run.checkpoint(resume_step), train, schedule)
    teachers = None
    if config.distill.on:
        note("looks at the teachers")
        teachers = Teachers(session, total)
        note_teachers(run, teachers.sources, begun=resume_step is not None)
    guard = Guard(config.train.guard, session.manifest.base_rate(config.data.train_split))
    parts = (session.sharded, session.tables, session.dense, session.optimizers)
    writer = CheckpointWriter(run.path, *parts, config.train.checkpoint, resume_step)
    reporter.begin(total, progress.step, _rows_left(train, config.train.epochs, progress, total))
    moved = TablesMoved(session.sharded, session.tables, session.device)
    with Together(writer) as together:
        shared = session, reporter, train, validation, progress, schedule, guard, moved, writer, together, trace
        job = Training(*shared, first=progress.step, total=total, teachers=teachers)
        try:
            while progress.due or (progress.step < total and not _waited_enough(job)):
                if not progress.due:
                    _segment(job, _segment_end(job))
                _validate(job)
            resume("writes the last checkpoint")
            writer.finish()
        except WeightsNotFinite as error:
            reason = likely_reason(session, progress, max(progress.step - MOST_BATCHES, job.first), progress.step)
            raise Stopped(f"stopped at step {progress.step}: {error}: {reason or LEARNING_RATES}") from None
        except (Stopped, NotFinite):
            # All ranks stop together, so the checkpoint that is being written can still be published.
            with suppress(UserError):
                writer.finish()
            raise
    return progress


def _rows_left(train: Reader, epochs: int, progress: Progress, total: int) -> int:
    """Rows from the progress up to the last step; an epoch's last batch may be smaller."""
    steps = train.steps(progress.batch_size)
    last = total // steps * train.rows + total % steps * progress.batch_size
    return max(min(last, train.rows * epochs) - progress.epoch * train.rows - progress.row, 0)


def _waited_enough(job: Training) -> bool:
    patience = job.session.config.train.early_stopping
    return patience is not None and job.progress.waited >= patience


def _segment_end(job: Training) -> int:
    """The row of the epoch at which the next validation is due (at the end of a batch), or at which `max_steps` is reached."""
    config, progress = job.session.config.train, job.progress
    steps = job.train.steps(config.batch_size)
    parts = min(config.validations_per_epoch, steps)
    ends = [round(steps * (index + 1) / parts) * config.batch_size for index in range(parts)]
    end = next(end for end in ends if end > progress.row)
    return min(end, progress.row + (job.total - progress.step) * config.batch_size)


def _segment(job: Training, end: int) -> None:
    """Trains from the current row up to row `end` of the epoch. Afterwards the pipeline is drained, and a validation is due."""
    session, progress = job.session, job.progress
    config = session.config
    batch_size, every = config.train.batch_size, config.train.log_every
    steps = -(-(end - progress.row) // batch_size)
    given = job.train.batches(batch_size, rank(), world_size(), progress.epoch, progress.row, steps)
    batches = _noted(job, job.teachers.taught(given, progress.step) if job.teachers else given)
    window = Window(progress.step, session.device, progress.window)
    session.sharded.train()
    for left in reversed(range(steps)):
        job.trace.step(progress.step)
        if job.together.exchange():
            _stop(job, window)
        logged = (progress.step + 1) % every == 0
        norms: dict[str, Tensor] | None = {} if logged else None
        session.task.controls.gradient_norms = norms
        session.prepare_step(progress.step, job.schedule.factor(progress.step))
        began = time.perf_counter()
        losses, *_ = session.pipeline.progress(batches)
        window.add(losses)
        progress.step += 1
        if progress.step == job.first + 1:
            # From here on, the log lines show that the run is alive.
            pause()
            if config.train.compile:
                job.reporter.say(f"compiled in the first step, which took {time.perf_counter() - began:.1f} s")
        rows = min(batch_size, job.train.rows - progress.row)
        progress.row, progress.trained_rows = progress.row + rows, progress.trained_rows + rows
        job.reporter.stepped(rows)
        if logged:
            progress.seconds += window.seconds()
            figures = window.close(norms)
            _check(job, window, figures["loss"])
            if progress.step - job.first >= every:
                job.moved.check()
            job.reporter.trained(progress, figures | {"lr_factor": session.optimizers.factor})
            window = Window(progress.step, session.device)
        # If a validation follows, the checkpoint after it is enough.
        if left and config.train.checkpoint.every_steps and progress.step % config.train.checkpoint.every_steps == 0:
            _save(job, window)
    progress.seconds += window.seconds()
    if window.steps:
        _check(job, window, window.close(None)["loss"])
    session.task.controls.gradient_norms = None
    progress.due, progress.window = True, None
    job.trace.close()
    if progress.row >= job.train.rows:
        progress.epoch, progress.row = progress.epoch + 1, 0


def _validate(job: Training) -> None:
    progress = job.progress

    def between_batches() -> None:
        note("evaluates", progress.step)
        if job.together.exchange():
            _stop(job)

    pause()
    figures = evaluate(job.session, job.validation, between_batches, told=shown_of("validation", job.validation))
    job.reporter.validated(progress, figures)
    reason = partial(likely_reason, job.session, progress, max(progress.step - MOST_BATCHES, job.first), progress.step)
    job.guard.check_auc(progress.step, figures["auc"], reason)
    job.schedule.validated(-figures["logloss"] if figures["auc"] is None else figures["auc"])
    progress.validated(figures["auc"], figures["logloss"])
    progress.due = False
    _save(job)


def _noted(job: Training, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yields the same batches, and tells the watchdog when the rank waits for a batch and when it has one."""
    while True:
        note("waits for its next batch", job.progress.step)
        batch = next(batches, None)
        compiles = job.session.config.train.compile and job.progress.step == job.first
        note("compiles the dense part, in the first step" if compiles else "is in a training step", job.progress.step + 1)
        if batch is None:
            return
        yield batch


def _check(job: Training, window: Window, loss: float) -> None:
    bad = None if math.isfinite(loss) else window.where_bad()
    progress, last = job.progress, bad[0] if bad else job.progress.step
    # The weights may have been broken by the step before.
    since = max(last - 2, job.first) if bad else window.since
    job.guard.check_loss(progress.step, loss, window.since, bad, partial(likely_reason, job.session, progress, since, last))


def _save(job: Training, window: Window | None = None) -> None:
    progress = job.progress
    note("writes the checkpoint", progress.step)
    progress.schedule = job.schedule.state()
    progress.window = None
    if window is not None:
        progress.seconds += window.seconds()
        if window.steps:
            progress.window = window.state()
            # A broken model must not replace a good checkpoint.
            if progress.window["sums"][0] is None:
                _check(job, window, math.nan)
    job.writer.save(asdict(progress))
    if window is not None:
        window.restart()


def _stop(job: Training, window: Window | None = None) -> None:
    _save(job, window)
    job.writer.finish()
    raise Preempted(f"asked to stop (SIGTERM): kept a checkpoint of step {job.progress.step:,}; start again with --resume")
