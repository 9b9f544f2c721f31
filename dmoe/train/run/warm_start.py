"""Warm start: a run begins from the checkpoint of an earlier run. Its tables may have more rows, for ids that were appended since."""

from dmoe.checkpoint.index import read_index
from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.of_run import checkpoint_of
from dmoe.data.dataset.manifest import Manifest
from dmoe.distributed import on_rank_0
from dmoe.errors import UserError
from dmoe.train.run.run_dir import problem_of
from dmoe.train.run.run_inputs import check_same_ids
from dmoe.train.session import Session


def begin_from(session: Session, path: str, manifest: Manifest | None = None) -> tuple[int, str]:
    """Loads weights and optimizer states. Rows that the checkpoint lacks keep their initial weights and empty states.

    Every rank must call it. Step, epoch, position in the data, schedule and best AUC are not loaded, since the run is a new one.

    Args:
        path: a checkpoint, or a run, whose best checkpoint is used.
        manifest: of the data set whose ids the rows of the tables are for, if it is not that of the session.

    Returns:
        The number of steps that led to these weights, and a line about what was loaded.

    Raises:
        UserError: the checkpoint is damaged, or has other features, dims, optimizers or ids, or larger tables.
    """
    try:
        folder = on_rank_0(lambda: _look(session, manifest or session.manifest, path))
        if problem := problem_of(folder):
            raise UserError(problem)
        kept = load_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers, grown=True)
    except UserError as error:
        raise UserError(f"train.init_from: {error}") from None
    there = read_index(folder).tables
    new = {table.feature: table.rows - there[table.logical_name(table.sections[0])][0] for table in session.tables if not table.private}
    grown = sum(rows > 0 for rows in new.values())
    line = f"begins from {folder}: {sum(new.values()):,} new ids in {grown} of {len(new)} features"
    return kept["step"] + kept.get("steps_before", 0), line


def _look(session: Session, manifest: Manifest, path: str) -> str:
    """The folder of the checkpoint, after a check that the data set has the ids of the earlier run, and perhaps further ones.

    Raises:
        UserError: there is no checkpoint, or the meaning of its ids is unknown or different.
    """
    folder, run = checkpoint_of(path)
    before = check_same_ids(run, session.config.data, manifest, grown=True)
    _check_hashes(session, folder, {one.name: one.cardinality for one in before.categorical})
    return folder


def _check_hashes(session: Session, folder: str, before: dict[str, int]) -> None:
    """Refuses hashed tables whose rows would stand for other ids than before: with another number of rows, or not hashed before.

    Raises:
        UserError: names the feature.
    """
    there, now = read_index(folder).tables, {one.name: one.cardinality for one in session.blueprint.features}
    for table in (table for table in session.tables if table.readers):
        rows, ids = there.get(table.logical_name(table.sections[0]), (table.rows, 0))[0], before[table.feature]
        if (rows < ids, table.rows < now[table.feature]) != (False, False) and (rows != table.rows or rows >= ids):
            was = f"hashed to {rows:,} rows" if rows < ids else "not hashed"
            raise UserError(
                f"{folder}: {table.feature}: its {ids:,} ids were {was}, its {now[table.feature]:,} ids would be hashed to {table.rows:,};"
                " keep model.embedding.hashed_rows, above the ids of a feature that was not hashed, or train anew"
            )
