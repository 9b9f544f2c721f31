"""The weights that a run's test figures are of."""

from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.progress import Progress
from dmoe.errors import UserError
from dmoe.train.run.run_dir import RunDir, problem_of
from dmoe.train.session import Session


def restore_best(session: Session, run: RunDir, progress: Progress) -> int:
    """Loads the weights of the best validation; where its checkpoint is damaged, of the newest sound one. Every rank has to call it.

    Returns:
        The step of the checkpoint that was loaded.

    Raises:
        UserError: no validation was made, or no checkpoint is sound.
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
