"""The command `dmoe online`, from its arguments to the loop."""

from dataclasses import asdict

from dmoe import distributed
from dmoe.alive import note
from dmoe.checkpoint.progress import OnlineState
from dmoe.config import Config, load_config, setting
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.schema import Schema, load_schema, shipped
from dmoe.errors import UserError
from dmoe.online import vocabulary
from dmoe.online.ids import from_vocabulary


def online(
    config_path: str, overrides: list[str], source: str, run_path: str, publish: str = "", once: bool = False, accept: int = 0
) -> None:
    """Follows a log, window by window; started again, it goes on where it was.

    Raises:
        UserError: whatever the user can mend.
    """
    config = load_config(config_path, [*overrides, setting("run.dir", run_path)])
    schema, dataset = _schema(config)
    check(config, run_path)
    model = vocabulary.model_manifest(schema, config.online.ids, dataset)
    from dmoe.checkpoint.save import save_checkpoint
    from dmoe.online.loop import Loop
    from dmoe.online.publish import Publisher
    from dmoe.train.command import join_group, leave_group
    from dmoe.train.run.run_dir import RunDir
    from dmoe.train.run.warm_start import begin_from
    from dmoe.train.trainer import Trainer

    run = RunDir(run_path)
    device = join_group(config, "dmoe.online")
    note("waits for another run to leave the folder")
    run.lock()
    note("verifies the checkpoints")
    newest = run.newest_sound()
    trainer = Trainer(config, model, device=device)
    session = trainer.session
    if newest is not None:
        step, refused = newest
        if load_manifest(run_path).schema_hash != model.schema_hash:
            raise UserError(f"--run {run_path}: its model has other features or capacities than the config; choose another")
        trainer.load(run.checkpoint(step))
        run.set_aside_after(step)
        run.resumed(step, refused, config, session.plan)
    else:
        step = 0
        run.create(config, model, session.plan)
        begin = distributed.on_rank_0(lambda: _first_state(config, run_path, schema, model))
        if config.train.init_from:
            if not config.data.path:
                raise UserError("train.init_from: in data.path, give the data set that its model was trained on, for its ids")
            trainer.progress.steps_before, _ = begin_from(session, config.train.init_from, load_manifest(config.data.path))
        trainer.progress.online, trainer.progress.schedule = begin, trainer.schedule.state()
        parts = (session.sharded, session.tables, session.dense, session.optimizers)
        save_checkpoint(run.checkpoint(0), *parts, asdict(trainer.progress))
    state = trainer.progress.online
    if state is None:
        raise UserError(f"--run {run_path}: is a run of dmoe train; choose another, and begin from this one with train.init_from")
    publisher = Publisher(publish, run_path, config) if publish and distributed.rank() == 0 else None
    Loop(trainer, run, source, schema, model, state, step, once, publisher, accept).go()
    run.unlock()
    leave_group()


def check(config: Config, run: str) -> None:
    """
    Raises:
        UserError: a part of the config that has no meaning over windows.
    """
    if "://" in run:
        raise UserError(f"--run {run}: remote, expected a local folder; publish to a remote one with --publish")
    schedule = config.optimizer.schedule
    if schedule.decay != "none" and schedule.decay_steps is None:
        raise UserError("optimizer.schedule.decay: a run over windows has no end; give optimizer.schedule.decay_steps, or decay none")
    if config.train.epochs != 1 or config.train.max_steps or config.train.early_stopping:
        raise UserError("train.epochs, max_steps, early_stopping: each window is trained once; leave them out")
    if config.train.checkpoint.keep < 2:
        raise UserError("train.checkpoint.keep: a version is made of the checkpoint before the newest one too; give 2 or more")
    if config.online.state_decay < 1 and config.optimizer.tables.kind not in ("adagrad", "rowwise_adagrad"):
        raise UserError(f"online.state_decay: optimizer.tables.kind {config.optimizer.tables.kind} has no sums; leave it out")


def _schema(config: Config) -> tuple[Schema, str]:
    """The log's schema, and the name of the log."""
    path = config.online.schema_file
    if config.data.path:
        if path:
            raise UserError("online.schema_file: the data set of data.path has its own schema; give one of the two")
        kept = load_kept(config.data.path)
        return vocabulary.plain(kept.schema), kept.dataset
    if not path:
        raise UserError("online.schema_file: give the log's schema; or, in data.path, a data set whose schema and ids the run begins with")
    return vocabulary.plain(load_schema(path)), path if path in shipped() else "log"


def _first_state(config: Config, run: str, schema: Schema, model: Manifest) -> OnlineState:
    """The state before the first window, with the ids of the data set that the run begins with, where there is one."""
    from dmoe.online.ledger import Ledger

    name = ""
    if config.data.path:
        manifest, kept = load_manifest(config.data.path), load_kept(config.data.path)
        rows = {one.name: one.cardinality for one in model.categorical}
        if (manifest.made_by.get("ids") == "hash") != bool(config.online.ids.hash_size):
            raise UserError("online.ids.hash_size: the data set of data.path has ids of the other kind")
        ids = {one.name: from_vocabulary(one, rows[one.name]) for one in kept.vocabularies}
        if cut := [one.name for one in kept.vocabularies if one.cardinality > rows[one.name]]:
            raise UserError(f"online.ids: {cut[0]} has more ids in {config.data.path} than its capacity of {rows[cut[0]]:,}; raise it")
        made_by = manifest.made_by | {"schema": schema.model_dump(mode="json", exclude_defaults=True)}
        name = "000000"
        vocabulary.save_ids(vocabulary.folder_of(run, name), manifest.model_copy(update={"made_by": made_by}), ids)
    return Ledger(run, None).state(name)
