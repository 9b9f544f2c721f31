"""Loads the weights that are evaluated on the test split."""

from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.progress import Progress
from dmoe.errors import UserError
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
