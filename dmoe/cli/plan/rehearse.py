"""Check config, plan, data set and run directory of a launch, shrink the plan to a few ranks of this machine (with its sharding types,
column shards and nodes, but fewer rows), and train a few steps on random rows with torchrun and dmoe.train. The exit code is 0 if all
works, 2 for a mistake that you can correct, and 1 for any other failure, with the end of the run's output.
"""

import argparse
import sys

from dmoe.cli.plan.common import add_model, model_of
from dmoe.errors import UserError
from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--plan", required=True, help="the plan that the launch will use (dmoe plan make)")
    parser.add_argument(
        "--ranks", type=int, default=2, choices=(1, 2, 4, 8), help="number of gloo processes; 4 and 8 are divided into two nodes (2)"
    )
    parser.add_argument("--steps", type=int, default=3, help="training steps (3)")
    parser.add_argument("--timeout", type=float, default=600, help="time limit of the run in seconds (600)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.steps < 1:
        raise UserError(f"--steps {arguments.steps}: expected at least 1")
    if not arguments.timeout > 0:
        raise UserError(f"--timeout {arguments.timeout}: expected seconds")
    model = model_of(arguments)
    from dmoe.sharding.plan.plan_file import read_plan
    from dmoe.train.rehearsal.local_launch import RunFailed
    from dmoe.train.rehearsal.rehearse import CANNOT_SHOW, look, rehearse

    def told(how: str, what: str) -> None:
        show(f"  {how}  {what}")

    config, experts = model.config, len(model.blueprint.experts)
    plan = read_plan(arguments.plan, "--plan")
    show(f"Rehearsal of {arguments.config} with {arguments.plan}")
    told("ok", f"config: {experts} experts on {len(model.blueprint.set_dims)} table set(s), {len(model.tables)} tables; the model builds")
    try:
        cluster = look(config, plan, arguments.plan, model, told)
        rehearse(config, plan, cluster, model, arguments.ranks, arguments.steps, arguments.timeout, told)
    except RunFailed as failure:
        show(f"{failure}\ndmoe plan: the rehearsal failed; the end of its output is above", sys.stderr)
        return 1
    print("It cannot show:")
    for line in CANNOT_SHOW:
        print(f"  - {line}")
    return 0
