"""Tables and pages of finished runs, a paired test of two runs, one run's experts on slices, or a whole ladder of variants over seeds.

dmoe report runs RUN... --output page.html --slice C3
dmoe report compare RUN_A RUN_B --output page.html
dmoe report experts RUN --slice C3 --frequency C3 --parts 4 --output page.html
dmoe report ladder --config ladder_demo --set data.path=DATA --seeds 5 --output DIR
dmoe report frontier --config ladder_demo --set data.path=DATA --seeds 5 --output DIR
dmoe report search --config search_frappe --set data.path=DATA --output DIR
"""

import argparse

from dmoe.cli.options import add_options, given
from dmoe.cli.view import show_view
from dmoe.errors import UserError
from dmoe.names import show
from dmoe.processes.alive import note
from dmoe.report.ladder.options import LadderOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    runs = commands.add_parser("runs", help="a table and a page on finished runs")
    runs.add_argument("run", nargs="+", help="directories of finished runs")
    _add_slices(runs)
    runs.add_argument("--title", default="dmoe runs")
    compare = commands.add_parser("compare", help="paired tests of two runs, slices, and the A/B test that they would need")
    compare.add_argument("run_a", help="directory of a finished run with metrics.predictions")
    compare.add_argument("run_b", help="what it is compared with")
    _add_values(compare, "also by the values of this feature; repeatable")
    compare.add_argument(
        "--top", type=float, default=0.1, help="share of candidates that a ranking shows, for the A/B test of clicks (0.1)"
    )
    experts = commands.add_parser("experts", help="who of a run's experts is good at what: slices of its test rows, with intervals")
    experts.add_argument("run", help="directory of a finished run with metrics.predictions and metrics.expert_predictions")
    _add_slices(experts)
    for one in (compare, experts):
        one.add_argument("--evaluation", default="", metavar="NAME", help="take NAME.json and .npz of dmoe.evaluate, not a run's own test")
    for one in (runs, compare, experts):
        one.add_argument("--output", help="the HTML page to write")
        one.add_argument("--json", action="store_true", help="print the view as JSON")
    ladder = commands.add_parser("ladder", help="train a list of variants over seeds, and say what the data supports; resumes by itself")
    add_options(ladder, LadderOptions)
    ladder.add_argument("--torchx-arg", action="append", default=[], metavar="ARG", help="further argument of launch/components.py:train")
    frontier = commands.add_parser(
        "frontier",
        help="what quality costs: a trained ladder's variants against bytes, FLOPs and latency, and which dominate; trains nothing",
    )
    add_options(frontier, LadderOptions, "jobs", "torchx", "report_only")
    frontier.set_defaults(report_only=True, torchx_arg=[])
    for one in (ladder, frontier):
        one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="lays a value over every variant; repeatable")
    search = commands.add_parser(
        "search", help="tune a ladder's variants, each by the same budget, by the validation split alone; resumes by itself"
    )
    search.add_argument("--config", required=True, help="the search, a YAML file such as configs/search_frappe.yaml")
    search.add_argument("--output", required=True, help="folder of the runs, of search.json and of best.yaml, a ladder of the winners")
    search.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="lays a value over every run; repeatable")
    search.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")


def _add_values(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--slice", action="append", default=[], metavar="FEATURE", help=help)
    parser.add_argument("--slices", type=int, default=8, help="values of a feature that get a slice of their own, most frequent first (8)")


def _add_slices(parser: argparse.ArgumentParser) -> None:
    """Options that say on which slices of the test rows experts are measured."""
    _add_values(parser, "experts by the values of this feature; repeatable")
    frequency = "experts by how often this feature's ids were seen; repeatable"
    parser.add_argument("--frequency", action="append", default=[], metavar="FEATURE", help=frequency)
    parts = "experts by equal stretches of the rows in the files' order: of time, where the log was split by time (0)"
    parser.add_argument("--parts", type=int, default=0, help=parts)


def run(arguments: argparse.Namespace) -> int | None:
    commands = {"runs": _runs, "compare": _compare, "experts": _experts, "search": _search, "ladder": _ladder, "frontier": _ladder}
    return commands[arguments.command](arguments)


def _ladder(arguments: argparse.Namespace) -> int:
    from dmoe.report.ladder.ladder import run_ladder

    return run_ladder(LadderOptions(**given(arguments, LadderOptions), set=arguments.set, torchx_arg=arguments.torchx_arg))


def _runs(arguments: argparse.Namespace) -> None:
    note("reads the runs")
    from dmoe.report.expert_slices import experts_of_run, slice_table
    from dmoe.report.run_page import run_document
    from dmoe.report.runs import load_run

    found, slices = [load_run(path) for path in arguments.run], []
    if arguments.slice or arguments.frequency or arguments.parts:
        slices = [slice_table(experts_of_run(path, *_slices(arguments))) for path in arguments.run]
    view = run_document(found, arguments.title, slices)
    show_view(view, arguments.output, view.data() if arguments.json else None)


def _compare(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.top <= 1:
        raise UserError(f"--top {arguments.top}: expected a share of the candidates, above 0 and at most 1")
    from dmoe.report.compare import compare_document, compare_runs

    by = (arguments.slice, arguments.slices, arguments.top, arguments.evaluation)
    view = compare_document(compare_runs(arguments.run_a, arguments.run_b, *by))
    show_view(view, arguments.output, view.data() if arguments.json else None)


def _experts(arguments: argparse.Namespace) -> None:
    from dmoe.report.expert_slices import experts_document, experts_of_run

    view = experts_document(experts_of_run(arguments.run, *_slices(arguments), arguments.evaluation))
    show_view(view, arguments.output, view.data() if arguments.json else None)


def _slices(arguments: argparse.Namespace) -> tuple[list[str], int, list[str], int]:
    if arguments.slices < 1 or arguments.parts < 0:
        raise UserError("--slices and --parts: expected at least one value of a feature, and no negative number")
    return arguments.slice, arguments.slices, arguments.frequency, arguments.parts


def _search(arguments: argparse.Namespace) -> int:
    import os

    if arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: expected at least one run at a time")
    from dmoe.report.ladder.search import run_search

    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    return run_search(arguments.config, arguments.output.rstrip("/"), arguments.set, arguments.jobs, threads, show)
