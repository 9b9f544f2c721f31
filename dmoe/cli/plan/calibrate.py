"""Trains a few steps on this machine by torchrun, keeping nothing, and compares what each rank holds (exact), sends (counted from the
collectives' tensors), and takes. On a cluster, start `-m dmoe.train.rehearsal.measure` as you start dmoe.train, and give its file by
--measured. Exit code 1 where a rank holds other bytes than planned.
"""

import argparse
import sys
from typing import Any

from dmoe.cli.plan.common import add_json, add_model, overrides_of
from dmoe.cli.view import show_view, write_page
from dmoe.errors import UserError
from dmoe.names import show

MOST_RANKS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", metavar="RUN", help="a run's directory: its config and its plan")
    add_model(parser, "an experiment instead of a run", cardinalities=False)
    parser.add_argument("--plan", help="with --config: the plan to use; one is made for --ranks where absent")
    parser.add_argument("--ranks", type=int, default=2, help="with --config and no plan: processes (2)")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed (10)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds after which the run is ended (900)")
    parser.add_argument("--measured", metavar="FILE", help="compare what dmoe.train.rehearsal.measure wrote, and start nothing")
    parser.add_argument("--write-cluster", metavar="FILE", help="write the cluster's device with corrected bandwidths, for --cluster")
    add_json(parser)
    parser.add_argument("--html", metavar="FILE", help="write the same as a self-contained page")


def run(arguments: argparse.Namespace) -> int:
    if sum(bool(source) for source in (arguments.folder, arguments.config, arguments.measured)) != 1:
        raise UserError("say what to measure: a run's directory, or --config X.yaml, or --measured FILE; one of them")
    if arguments.steps < 1 or not arguments.timeout > 0:
        raise UserError(f"--steps {arguments.steps}, --timeout {arguments.timeout:g}: expected at least a step, and seconds")
    from dmoe.sharding.planner.cost.calibrate import compare
    from dmoe.sharding.planner.cost.calibrate_words import as_data, calibration_document, cluster_text
    from dmoe.train.rehearsal.local_launch import RunFailed

    try:
        measured, where = _measured(arguments)
    except RunFailed as failure:
        show(f"{failure}\ndmoe plan: the measured run failed; what is above is the end of its output", sys.stderr)
        return 1
    found = compare(measured, where)
    show_view(calibration_document(found), arguments.html, as_data(found) if arguments.json else None)
    if arguments.write_cluster:
        write_page(arguments.write_cluster, cluster_text(found))
        if not arguments.json:
            cluster = found.figures.cluster
            show(f"{arguments.write_cluster}: plan with it by --cluster {cluster.nodes}x{cluster.ranks_a_node}:{arguments.write_cluster}")
    return 1 if found.misplaced else 0


def _measured(arguments: argparse.Namespace) -> tuple[Any, str]:
    """The measurement's data and where it is from."""
    import tempfile

    from dmoe.config.config import setting
    from dmoe.sharding.plan.plan_file import check_plan, read_plan
    from dmoe.sharding.planner.cost.calibrate import read_measurement
    from dmoe.storage.paths import PATHS, join
    from dmoe.train.rehearsal.local_launch import run_here

    if arguments.measured:
        return read_measurement(arguments.measured), arguments.measured
    config, path = arguments.config, arguments.plan
    if arguments.folder:
        config, path = join(arguments.folder, "config.yaml"), arguments.plan or join(arguments.folder, "plan.json")
        if not PATHS.exists(config):
            raise UserError(f"{arguments.folder}: no run there (no config.yaml)")
    nodes, ranks_a_node = 1, arguments.ranks
    if path:
        cluster = check_plan(read_plan(path), path)
        nodes, ranks_a_node = cluster.nodes, cluster.ranks_a_node
    if not 1 <= nodes * ranks_a_node <= MOST_RANKS:
        raise UserError(
            f"{path or '--ranks'}: {nodes * ranks_a_node:,} ranks, and this machine is given 1 to {MOST_RANKS}; on the cluster itself start"
            " `-m dmoe.train.rehearsal.measure` and give its file by --measured (dmoe plan rehearse tries a large plan's launch here)"
        )
    overrides = [*overrides_of(arguments), setting("sharding.plan", path or "")]
    words = ["--config", config, "--steps", str(arguments.steps), "--set", *overrides]
    with tempfile.TemporaryDirectory(prefix="dmoe-calibrate-") as folder:
        output = f"{folder}/measured.json"
        words += ["--output", output]
        run_here("dmoe.train.rehearsal.measure", words, nodes, ranks_a_node, arguments.timeout, folder, "the measured run")
        return read_measurement(output), path or config
