"""The two commands, train and evaluate, from their arguments to their files."""

import time
from typing import Any

from dmoe import distributed
from dmoe.config import Config, load_config
from dmoe.data.manifest import FILE, Manifest, load_manifest
from dmoe.errors import UserError
from dmoe.paths import PATHS, join
from dmoe.train.quiet import quiet


def train(config_path: str, overrides: list[str], resume: bool) -> None:
    """Trains, evaluates the best checkpoint on the test split, and writes metrics.json.

    Raises:
        UserError: whatever the user can mend.
    """
    config = load_config(config_path, overrides)
    if not config.run.dir:
        raise UserError("run.dir: say where the run is to be kept, such as --set run.dir=runs/first")
    manifest = load_manifest(config.data.path)
    for split in (config.data.train_split, config.data.validation_split, config.data.test_split):
        manifest.split(split)
    quiet()
    from dmoe.train.run_dir import RunDir

    run = RunDir(config.run.dir)
    holds = run.holds_a_run()
    if holds and not resume:
        raise UserError(f"run.dir: {run.path} holds a run already; --resume goes on with it, or choose another")
    device = distributed.start(config.run.timeout_seconds)
    try:
        _train(config, manifest, run, device, resume=holds)
    finally:
        distributed.stop()


def _train(config: Config, manifest: Manifest, run: Any, device: Any, resume: bool) -> None:
    from dmoe.train.evaluate import evaluate
    from dmoe.train.loop import fit, restore_best
    from dmoe.train.report import Reporter, headline
    from dmoe.train.session import open_session

    began = time.perf_counter()
    newest = distributed.broadcast_object(_newest(run) if resume and distributed.rank() == 0 else None)
    if isinstance(newest, str):
        raise UserError(newest)
    session = open_session(config, manifest, device)
    if not resume:
        run.create(config, manifest, session.plan)
    reporter = Reporter(run)
    reporter.say(describe(session))
    if newest is not None:
        step, refused = newest
        for reason in refused:
            reporter.say(f"passed over: {reason}")
        reporter.say(f"resuming from step {step:,}")
        run.forget_after(step)
    progress = fit(session, run, reporter, None if newest is None else newest[0])
    restore_best(session, run, progress)
    figures = evaluate(session, session.reader(config.data.test_split))
    figures |= {
        "split": config.data.test_split,
        "variant": config.variant,
        "best_step": progress.best_step,
        "steps": progress.step,
        "trained_rows": progress.trained_rows,
        "samples_per_second": progress.trained_rows / max(progress.seconds, 1e-9),
        "train_seconds": progress.seconds,
        "total_seconds": time.perf_counter() - began,
        "world_size": distributed.world_size(),
        "embedding_l2_covers": "rows looked up only" if config.optimizer.embedding_l2 else "nothing",
    }
    run.finish(figures)
    reporter.say(f"test of step {progress.best_step:,}: {headline(figures)}")
    reporter.say(f"run kept in {run.path}")
    reporter.close()


def _newest(run: Any) -> Any:
    try:
        return run.newest_sound()
    except UserError as error:
        return str(error)


def evaluate_run(run_path: str, data: str | None, split: str | None, output: str) -> dict[str, Any]:
    """Evaluates the best checkpoint of a run, on its own data or on another data set of the same schema; writes `output` in the run.

    Raises:
        UserError: no such run, or data of another schema.
    """
    if not PATHS.exists(join(run_path, "config.yaml")):
        raise UserError(f"--run {run_path}: no run there (no config.yaml)")
    config = load_config(join(run_path, "config.yaml"))
    trained_on = load_manifest(run_path)
    folder = data or config.data.path
    manifest = load_manifest(folder)
    check_schema(trained_on, manifest, folder)
    quiet()
    device = distributed.start(config.run.timeout_seconds)
    try:
        from dmoe.train.checkpoint.index import verify_checkpoint
        from dmoe.train.checkpoint.load import load_checkpoint
        from dmoe.train.evaluate import evaluate
        from dmoe.train.report import headline
        from dmoe.train.run_dir import RunDir
        from dmoe.train.session import open_session

        run = RunDir(run_path)
        steps = run.checkpoints()
        if not steps:
            raise UserError(f"--run {run_path}: the run has no checkpoint yet")
        newest = verify_checkpoint(run.checkpoint(steps[-1]))
        best = newest.progress["best_step"] or steps[-1]
        verify_checkpoint(run.checkpoint(best))
        session = open_session(config, trained_on, device)
        load_checkpoint(run.checkpoint(best), session.sharded, session.tables, session.dense, None)
        chosen = split or config.data.test_split
        figures = evaluate(session, session.reader(chosen, folder=folder, manifest=manifest))
        figures |= {"split": chosen, "variant": config.variant, "best_step": best, "world_size": distributed.world_size()}
        run.finish(figures, output)
        if distributed.rank() == 0:
            print(f"{chosen} of step {best:,}: {headline(figures)}")
        return figures
    finally:
        distributed.stop()


def check_schema(trained_on: Manifest, manifest: Manifest, folder: str) -> None:
    """Refuses data whose ids mean something else.

    Raises:
        UserError: names the first feature that differs.
    """
    theirs = {feature.name: feature for feature in manifest.categorical}
    for feature in trained_on.categorical:
        other = theirs.get(feature.name)
        if other is None or other.cardinality != feature.cardinality:
            found = "is not there" if other is None else f"has {other.cardinality:,} ids"
            raise UserError(
                f"{join(folder, FILE)}: feature {feature.name} {found}, the model was trained with {feature.cardinality:,} ids;"
                " preprocess the data with the run's vocabulary"
            )
    if missing := [f.name for f in trained_on.dense if f.name not in {d.name for d in manifest.dense}]:
        raise UserError(f"{join(folder, FILE)}: dense feature {missing[0]} is not there, the model was trained with it")


def describe(session: Any) -> str:
    """One paragraph on what is about to run."""
    config, blueprint = session.config, session.blueprint
    dense = sum(parameter.numel() for parameter in session.dense.parameters())
    numbers = sum(table.rows * sum(section.dim for section in table.sections) for table in blueprint.tables)
    kinds = sorted({row["sharding_type"] for row in session.plan["tables"].values()})
    names = ", ".join(kind for kind, _ in blueprint.experts)
    ranks = distributed.world_size()
    return (
        f"{config.variant}: {len(blueprint.experts)} experts ({names}) on {len(blueprint.set_dims)} table set(s), "
        f"{len(blueprint.features)} categorical and {len(blueprint.dense)} numeric features\n"
        f"{numbers:,} embedding parameters in {len(blueprint.tables)} tables ({', '.join(kinds)}), {dense:,} dense parameters;"
        f" {ranks} rank(s) on {session.device.type}"
    )
