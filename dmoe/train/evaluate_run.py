"""The command evaluate."""

import sys
from typing import Any

from dmoe import distributed
from dmoe.config.config import load_config
from dmoe.data.dataset.manifest import FILE, load_manifest
from dmoe.data.skew import shares_of, skew_lines
from dmoe.errors import UserError
from dmoe.names import show
from dmoe.processes import alive
from dmoe.processes.alive import note
from dmoe.storage.paths import PATHS, inside
from dmoe.terminal import tell
from dmoe.train.command import join_group, leave_group, verify_shards
from dmoe.train.run.run_inputs import check_data, run_inputs


def evaluate_run(run_path: str, data: str | None, split: str | None, output: str) -> dict[str, Any]:
    """Evaluates the best checkpoint of a run on its own data, or on another data set with the same ids. Writes `output` in the run
    directory.

    Raises:
        UserError: there is no such run, or the ids or numbers of the data mean something else than those of the model.
    """
    path = inside(run_path, "config.yaml")
    if not PATHS.exists(path):
        raise UserError(f"--run {run_path}: no run there (no config.yaml)")
    # A checkpoint can be loaded under any plan. The plan of the run was made for the run's number of ranks.
    config = load_config(path, ["sharding.plan=''"])
    inside(run_path, FILE)
    trained_on = load_manifest(run_path)
    folder = data or config.data.path
    manifest = load_manifest(folder)
    skewed = skew_lines(shares_of(trained_on), manifest, folder)
    chosen = split or config.data.test_split
    manifest.split(chosen)
    device = join_group(config, "dmoe.evaluate")
    distributed.on_rank_0(lambda: check_data(run_inputs(run_path), manifest, folder))
    verify_shards(folder, manifest, [chosen])
    from dmoe.checkpoint.index import read_index, verify_checkpoint
    from dmoe.checkpoint.load import check_fits, load_checkpoint
    from dmoe.model.build import make_blueprint, outline_of
    from dmoe.train.evaluate import evaluate, shown_of
    from dmoe.train.output.console import headline, numbers_of
    from dmoe.train.run.run_dir import RunDir
    from dmoe.train.session import open_session

    run = RunDir(run_path)
    kept = run.file(output.removesuffix(".json") + ".npz")
    newest = run.newest_sound()
    if newest is None:
        raise UserError(f"--run {run_path}: the run has no checkpoint yet")
    best = read_index(run.checkpoint(newest[0])).progress.get("best_step") or newest[0]
    verify_checkpoint(run.checkpoint(best))
    blueprint = make_blueprint(config, trained_on)
    check_fits(run.checkpoint(best), blueprint.tables, outline_of(config, blueprint))
    session = open_session(config, trained_on, device)
    load_checkpoint(run.checkpoint(best), session.sharded, session.tables, session.dense, None)
    reader = session.reader(chosen, folder=folder, manifest=manifest, in_order=config.metrics.predictions)
    alive.pause()
    figures = evaluate(session, reader, lambda: note("evaluates", best), (kept, best), shown_of(chosen, reader))
    figures |= {"data": folder, "split": chosen, "variant": config.variant, "best_step": best, "world_size": distributed.world_size()}
    run.finish(figures, output)
    if distributed.rank() == 0:
        for line in skewed:
            show(line, sys.stderr)
        line = f"{chosen} of step {best:,}: {headline(figures)}"
        tell(line, event="evaluation", stream=sys.stdout, **(numbers_of(figures) | {"data": folder, "split": chosen}))
    leave_group()
    return figures
