"""Sharding plans, without a GPU: `tools/plan.py make` plans a model for a cluster, `tools/plan.py show` says what a plan does."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dmoe.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/plan.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="plan a config's model for a cluster that need not be there")
    make.add_argument("--config", required=True, help="the experiment, a YAML file")
    make.add_argument("--cluster", required=True, help="NODESxRANKS:DEVICE such as 16x8:h100 or 1x2:cpu, or a YAML file for the device")
    make.add_argument("--data", help="the data set whose manifest says how large the tables are; the config's data.path where absent")
    make.add_argument("--cardinalities", help="a YAML file of `feature: cardinality` lines instead of a data set")
    make.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="lays values over the config")
    make.add_argument("--output", default="plan.json", help="the plan file to write; train with it by --set sharding.plan=FILE")
    show = commands.add_parser("show", help="what each rank holds and does, and where each table lies")
    show.add_argument("plan", help="a plan file, such as a run's plan.json")
    show.add_argument("--top", type=int, help="the largest tables only, this many")
    arguments = parser.parse_args()
    if arguments.command == "make":
        _make(arguments)
    else:
        _show(arguments.plan, arguments.top)


def _make(arguments: argparse.Namespace) -> None:
    from dmoe.config import load_config
    from dmoe.train.quiet import quiet

    overrides = [*([f"data.path={arguments.data}"] if arguments.data else []), *arguments.set]
    config = load_config(arguments.config, overrides)
    quiet()
    from dmoe.sharding.cluster import parse_cluster
    from dmoe.sharding.described import describe, load_sizes
    from dmoe.sharding.kept import write_plan

    cluster = parse_cluster(arguments.cluster)
    plan = describe(config, load_sizes(config, arguments.cardinalities)).plan(cluster)
    write_plan(arguments.output, plan)
    predicted = plan["predicted"]
    print(
        f"{arguments.output}: {len(plan['tables'])} tables on {cluster.name}; the critical rank is {predicted['critical_rank']},"
        f" with {predicted['time_ms']:.2f} ms a step predicted for the tables"
    )


def _show(path: str, top: int | None) -> None:
    from dmoe.sharding.kept import read_plan
    from dmoe.sharding.show import as_lines

    for line in as_lines(read_plan(path), top):
        print(line)


if __name__ == "__main__":
    sys.exit(run_command("tools/plan.py", main))
