"""Checks the config of an online run, and loads the schema of its log. It needs no torch."""

from dmoe.config.config import Config
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.schema import Schema, load_schema, shipped
from dmoe.errors import UserError
from dmoe.online import vocabulary


def check(config: Config, run: str) -> None:
    """Checks the config of an online run.

    Raises:
        UserError: an option does not work with windows.
    """
    if "://" in run:
        raise UserError(f"--run {run}: remote, expected a local folder; publish to a remote one with --publish")
    if (sets := config.model.embedding.sets) in ("light", "hashed"):
        raise UserError(
            f"model.embedding.sets: {sets} reads rows by an id's rank or hash, and ids come and go over windows; use per_expert or shared"
        )
    if config.distill.teachers:
        raise UserError("distill.teachers: a teacher has the ids that it was trained with, and ids come and go over windows; leave it out")
    schedule = config.optimizer.schedule
    if schedule.decay != "none" and schedule.decay_steps is None:
        raise UserError("optimizer.schedule.decay: a run over windows has no end; give optimizer.schedule.decay_steps, or decay none")
    if config.train.epochs != 1 or config.train.max_steps or config.train.early_stopping:
        raise UserError("train.epochs, max_steps, early_stopping: each window is trained once; leave them out")
    if config.train.checkpoint.keep < 2:
        raise UserError("train.checkpoint.keep: a version is made of the checkpoint before the newest one too; give 2 or more")
    if config.online.rate_power and config.online.ids.hash_size:
        raise UserError("online.rate_power: hashed rows have no sightings (online.ids.hash_size); leave one of the two out")
    if config.online.state_decay < 1 and config.optimizer.tables.kind not in ("adagrad", "rowwise_adagrad"):
        raise UserError(f"online.state_decay: optimizer.tables.kind {config.optimizer.tables.kind} has no sums; leave it out")


def schema_of(config: Config) -> tuple[Schema, str]:
    """The schema of the log, and the name of the log.

    Raises:
        UserError: no schema is given, or it does not exist.
    """
    path = config.online.schema_file
    if config.data.path:
        if path:
            raise UserError("online.schema_file: the data set of data.path has its own schema; give one of the two")
        kept = load_kept(config.data.path)
        return vocabulary.plain(kept.schema), kept.dataset
    if not path:
        raise UserError("online.schema_file: give the log's schema; or, in data.path, a data set whose schema and ids the run begins with")
    return vocabulary.plain(load_schema(path)), path if path in shipped() else "log"
