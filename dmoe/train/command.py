"""The command train. For the command evaluate see `dmoe.train.evaluate_run`."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dmoe import distributed
from dmoe.config.config import Config, load_config
from dmoe.data.dataset.earlier import with_identities
from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest
from dmoe.errors import UserError
from dmoe.processes import alive
from dmoe.processes.alive import note
from dmoe.processes.malloc import keep_freed_memory
from dmoe.storage.paths import join
from dmoe.train.elastic import watchdog as watch
from dmoe.train.run.run_inputs import check_same_ids
from dmoe.train.trackers.tracker import check_installed

VERIFYING_THREADS = 2
"""On CPUs with SHA instructions, a thread hashes more than 1 GB/s, so two threads are faster than most disks."""


def train(config_path: str, overrides: list[str], resume: bool, trace: str | None = None, page: Callable[[str], str] | None = None) -> None:
    """Trains, evaluates the best checkpoint on the test split, and writes metrics.json.

    Args:
        page: makes an HTML page of a finished run's folder, for the trackers that keep files.

    Raises:
        UserError: a mistake that the user can correct.
    """
    config = load_config(config_path, overrides)
    if not config.run.dir:
        raise UserError("run.dir: name the directory for the run, such as --set run.dir=runs/first")
    check_installed(config.run.trackers)
    manifest = load_manifest(config.data.path)
    for split in (config.data.train_split, config.data.validation_split, config.data.test_split):
        manifest.split(split)
    train = manifest.split(config.data.train_split)
    if train.only_label:
        raise UserError(
            f"{join(config.data.path, FILE)}: split '{config.data.train_split}': all {train.rows:,} rows are {train.only_label}, so that"
            " there is nothing to learn; check the label column, its positive value and the split"
        )
    from dmoe.train.output.console import Reporter
    from dmoe.train.output.trace import Trace, parse_window
    from dmoe.train.run.run_dir import RunDir

    window = parse_window(trace) if trace else None
    run = RunDir(config.run.dir)
    device = join_group(config, "dmoe.train")
    _holds(run, resume)
    note("waits for another training to leave run.dir")
    run.lock()
    note("loads TorchRec")
    holds = _holds(run, resume)
    with Reporter(run) as reporter:
        _train(config, manifest, run, device, reporter, Trace(window, run.path, distributed.rank()), resume=holds)
        run.unlock()
        leave_group()
        # No other rank waits for the trackers of rank 0.
        reporter.keep_files(page)


def _holds(run: Any, resume: bool) -> bool:
    """Whether the directory holds a run; the same answer on every rank.

    Raises:
        UserError: it holds a run, and --resume is not given.
    """
    holds: bool = distributed.broadcast_object(run.holds_a_run() if distributed.rank() == 0 else None)
    if holds and not resume:
        raise UserError(f"run.dir: {run.path} holds a run already; add --resume to continue it, or choose another directory")
    return holds


def join_group(config: Config, program: str) -> Any:
    # Otherwise glibc returns buffers of 10 MB to the system in every step, and page faults take a tenth of the step.
    keep_freed_memory()
    # The time-out of the collectives is only a fallback for the watchdog: it cannot say which rank hangs.
    device = distributed.start(int(config.run.timeout_seconds * 1.5) + 30)
    watch.begin(program, config.run.timeout_seconds)
    return device


def leave_group() -> None:
    """Leaves the process group after a successful run. After an error, dmoe.train.elastic.exit_codes still needs the group, to print the
    message on one rank only."""
    watch.end()
    distributed.stop()


def _train(config: Config, manifest: Manifest, run: Any, device: Any, reporter: Any, trace: Any, resume: bool) -> None:
    from dmoe.train.evaluate import evaluate, shown_of
    from dmoe.train.loop import fit
    from dmoe.train.output.describe import describe
    from dmoe.train.run.predictions import FILE as PREDICTIONS
    from dmoe.train.run.restore import restore_best
    from dmoe.train.run.warm_start import begin_from
    from dmoe.train.session import open_session

    began = time.perf_counter()
    note("verifies the checkpoints")
    newest = run.newest_sound() if resume else None
    cost = _affordable(config, manifest, device)
    if newest is not None:
        # The data set may have been made again with other ids.
        distributed.on_rank_0(lambda: check_same_ids(run.path, config.data, manifest))
    data = config.data
    verify_shards(data.path, manifest, [data.train_split, data.validation_split, data.test_split])
    session = open_session(config, manifest, device)
    steps_before, begun = 0, ""
    if newest is None:
        if config.train.init_from:
            note("loads the checkpoint that it begins from")
            steps_before, begun = begin_from(session, config.train.init_from)
        run.create(config, distributed.on_rank_0(lambda: with_identities(manifest, data.path)), session.plan)
    if cost:
        reporter.say(describe(session, cost))
    if begun:
        reporter.say(begun)
    changed: list[str] = []
    if newest is not None:
        step, refused = newest
        for reason in refused:
            reporter.say(f"passed over: {reason}")
        run.set_aside_after(step)
        changed = run.resumed(step, refused, config, session.plan)
        reporter.say(f"resuming from step {step:,}{' with ' if changed else ''}{', '.join(changed)}")
    reporter.track(config, resume, changed)
    progress = fit(session, run, reporter, None if newest is None else newest[0], trace, steps_before)
    note("loads the best checkpoint", progress.step)
    best = restore_best(session, run, progress)
    if best != progress.best_step:
        reporter.say(f"the best checkpoint, of step {progress.best_step:,}, is damaged; step {best:,} is taken in its place")
    test = session.reader(config.data.test_split, in_order=config.metrics.predictions)
    alive.pause()
    kept = run.file(PREDICTIONS), best
    figures = evaluate(session, test, lambda: note("evaluates", progress.step), kept, shown_of("test", test))
    alive.resume("measures the tables' information abundance")
    figures |= _abundance(config, run, best)
    figures |= {
        "split": config.data.test_split,
        "variant": config.variant,
        "best_step": best,
        "steps": progress.step,
        "trained_rows": progress.trained_rows,
        "samples_per_second": progress.trained_rows / max(progress.seconds, 1e-9),
        "train_seconds": progress.seconds,
        "total_seconds": time.perf_counter() - began,
        "world_size": distributed.world_size(),
        "embedding_l2_covers": "rows looked up only" if config.optimizer.embedding_l2 else "nothing",
    }
    reporter.tested(best, figures)


def _affordable(config: Config, manifest: Manifest, device: Any) -> Any:
    """Computes the cost of the model on the first rank of each host, and compares it with the memory of the host.

    Raises:
        UserError: on every rank, if a host has too little memory.
    """
    from dmoe.model.budget.cost import cost_of
    from dmoe.train.memory import shortage
    from dmoe.train.teacher import held_bytes

    note("adds up what the model will cost")
    first = distributed.rank() % distributed.local_world_size() == 0
    cost = cost_of(config, manifest) if first else None
    # The tables of a teacher lie beside those of the student.
    beside = replace(cost, table_state_bytes=cost.table_state_bytes + held_bytes(config)) if cost else None
    if problem := distributed.first_problem(shortage(config, beside, device) if beside else None):
        raise UserError(problem)
    return cost


def verify_shards(folder: str, manifest: Manifest, splits: list[str]) -> None:
    """Compares the shards of some splits with the manifest. Each rank verifies a part of them.

    Raises:
        UserError: on every rank, if a shard does not agree with the manifest.
    """
    from dmoe.data.dataset.files import verify

    def verifying() -> None:
        note("verifies the shards of the data set")

    verifying()
    part, parts = distributed.rank(), distributed.world_size()
    distributed.on_every_rank(lambda: verify(folder, manifest, VERIFYING_THREADS, splits, part, parts, verifying))


def _abundance(config: Config, run: Any, step: int) -> dict[str, Any]:
    """The information abundance of the tables; computed on rank 0 only."""
    if not config.metrics.abundance or distributed.rank() != 0:
        return {}
    from dmoe.metrics.abundance import information_abundance

    return {"information_abundance": information_abundance(run.checkpoint(step))}
