"""The command `dmoe online`: loads or creates the run, and starts the loop over windows."""

from dataclasses import asdict

from dmoe import distributed
from dmoe.checkpoint.progress import OnlineState
from dmoe.config.config import Config, load_config, setting
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.raw_bytes import STDIN
from dmoe.errors import UserError
from dmoe.online import vocabulary
from dmoe.online.checks import check, schema_of
from dmoe.online.ids import from_vocabulary
from dmoe.processes.alive import note


def online(
    config_path: str, overrides: list[str], source: str, run_path: str, publish: str = "", once: bool = False, accept: int = 0
) -> None:
    """Follows a log, window by window. If it is started again, it continues where it stopped.

    Raises:
        UserError: a mistake that the user can correct.
    """
    config = load_config(config_path, [*overrides, setting("run.dir", run_path)])
    schema, dataset = schema_of(config)
    check(config, run_path)
    model = vocabulary.model_manifest(schema, config.online.ids, dataset)
    from dmoe.checkpoint.save import save_checkpoint
    from dmoe.online.loop import Loop
    from dmoe.online.publish import Publisher, check_target
    from dmoe.online.windows.spool import Spool, inbox
    from dmoe.online.windows.taking import Taker
    from dmoe.train.command import join_group, leave_group
    from dmoe.train.run.run_dir import RunDir
    from dmoe.train.run.warm_start import begin_from
    from dmoe.train.trainer import Trainer

    run = RunDir(run_path)
    device = join_group(config, "dmoe.online")
    note("waits for another run to leave the folder")
    run.lock()
    if publish:
        distributed.on_rank_0(lambda: check_target(publish, run_path))
    note("verifies the checkpoints")
    newest = run.newest_sound()
    # The tables have a row for each possible id, so the token counts of the initial data set do not fit them.
    planned = config.model_copy(update={"data": config.data.model_copy(update={"path": ""})})
    trainer = Trainer(planned, model, device=device)
    session = trainer.session
    if config.online.ema:
        session.optimizers.begin_average(config.online.ema)
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
    taker, publisher = None, None
    if distributed.rank() == 0:
        spool = Spool(run_path, schema, config.online.windows) if source == STDIN else None
        if spool:
            spool.start(state)
        ended = (lambda: spool.ended) if spool else (lambda: once)
        taker = Taker(run_path, inbox(run_path) if spool else source, schema, config.online, model, state, ended, accept)
        publisher = Publisher(publish, run_path, config) if publish else None
    Loop(trainer, run, state, step, taker, publisher).go()
    run.unlock()
    leave_group()


def _first_state(config: Config, run: str, schema: Schema, model: Manifest) -> OnlineState:
    """The state before the first window, with the ids of the initial data set, if there is one."""
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
        if other := [name for name, size in kept.sizes.items() if size != rows[name]]:
            made = f"{other[0]} has ids of {kept.sizes[other[0]]:,} rows in {config.data.path}"
            raise UserError(f"online.ids.hash_size: {made}, and {rows[other[0]]:,} in the config; give it the size of the data set")
        name = "000000"
        vocabulary.save_ids(vocabulary.folder_of(run, name), manifest.model_copy(update={"made_by": made_by}), ids)
    return Ledger(run, None).state(name)
