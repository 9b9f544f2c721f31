"""Loads a checkpoint of a run: to go on from it, or to test its best weights."""

from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.progress import Progress, progress_from
from dmoe.data.dataset.reading.reader import Reader
from dmoe.errors import UserError
from dmoe.train.optimizer.schedule import Schedule
from dmoe.train.run.run_dir import RunDir, problem_of
from dmoe.train.session import Session


def restore_best(session: Session, run: RunDir, progress: Progress) -> int:
    """Loads the checkpoint of the best validation, or, if it is damaged, the newest sound one. Every rank must call it.

    Returns:
        The step of the loaded checkpoint.

    Raises:
        UserError: there was no validation, or there is no sound checkpoint.
    """
    if progress.best_step is None:
        raise UserError("the run made no validation, so there is no best checkpoint; train at least one step")
    step = progress.best_step
    if problem_of(run.checkpoint(step)) is not None:
        newest = run.newest_sound()
        if newest is None:
            raise UserError(f"{run.path}: no sound checkpoint is left")
        step = newest[0]
    load_checkpoint(run.checkpoint(step), session.sharded, session.tables, session.dense, None)
    return step


def resume_from(session: Session, folder: str, train: Reader, schedule: Schedule) -> Progress:
    """Loads a checkpoint into the session and the schedule.

    Raises:
        UserError: the checkpoint is damaged, or the run goes on with another batch size or another order of the rows.
    """
    kept = load_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers)
    progress = progress_from(kept, folder)
    schedule.load_state(progress.schedule)
    if progress.batch_size != session.config.train.batch_size:
        raise UserError(
            f"train.batch_size: is {session.config.train.batch_size}, but {folder} was trained with {progress.batch_size}, on which its"
            f" steps and schedule depend; resume with train.batch_size={progress.batch_size}"
        )
    if progress.row and progress.order != train.order:
        raise UserError(
            f"{folder}: stopped within an epoch with another order of rows, so some rows would be used twice and others never; resume with"
            " the data set, data.train_split, data.shuffle, data.window_row_groups and train.seed that the run was started with"
        )
    if progress.row >= train.rows or progress.row % progress.batch_size:
        raise UserError(f"{folder}: progress.row is {progress.row:,}, not the end of a batch within an epoch of {train.rows:,} rows")
    progress.order = train.order
    return progress
