"""Follow a log that grows: test each window, then train on it, watch, publish. Started again, it goes on where it was.

dmoe online --config online.yaml --source logs/ --run runs/live --publish published
torchrun --nproc-per-node 2 -m dmoe.online --config online.yaml --source logs/ --run runs/live
dmoe online status runs/live --output page.html
dmoe online tokens runs/live --feature user u17 u18
dmoe online rollback runs/live --to 41 --publish published
"""

import argparse

from dmoe.cli.options import add_log_format
from dmoe.errors import UserError
from dmoe.names import show


def RUNS_ON_RANKS(arguments: argparse.Namespace) -> bool:
    """Not those that look at a run."""
    return not arguments.command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="the experiment with its `online` part: a YAML file, or the name of a config that dmoe ships")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override values of the config")
    parser.add_argument("--source", metavar="S", help="a folder, glob or prefix that fills with files")
    parser.add_argument("--run", metavar="R", help="local folder of the run: ledger, checkpoints, vocabularies")
    parser.add_argument("--publish", metavar="P", help="folder that gets versions for dmoe serve, and a pointer; local or remote")
    parser.add_argument("--once", action="store_true", help="take what is there, and end")
    parser.add_argument("--accept", type=int, default=0, metavar="WINDOW", help="learn from this quarantined window next")
    add_log_format(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    status = commands.add_parser("status", help="what became of each window")
    status.add_argument("of", metavar="RUN")
    status.add_argument("--json", action="store_true", help="all of it as JSON")
    status.add_argument("--last", type=int, default=20, help="windows that are printed (20)")
    status.add_argument("--output", metavar="F", help="a page with curves and events")
    tokens = commands.add_parser("tokens", help="a token's row, sightings, birth and last sight")
    tokens.add_argument("of", metavar="RUN")
    tokens.add_argument("--feature", required=True)
    tokens.add_argument("token", nargs="+")
    rollback = commands.add_parser("rollback", help="back to the model of an earlier window")
    rollback.add_argument("of", metavar="RUN")
    rollback.add_argument("--to", type=int, required=True, metavar="WINDOW")
    rollback.add_argument("--publish", default="", metavar="P", dest="published", help="move the pointer there as well")


def run(arguments: argparse.Namespace) -> None:
    if arguments.command:
        {"status": _status, "tokens": _tokens, "rollback": _rollback}[arguments.command](arguments)
        return
    if absent := [name for name in ("config", "source", "run") if not getattr(arguments, name)]:
        raise UserError(f"--{absent[0]}: is missing; dmoe online needs --config, --source and --run")
    from dmoe.online.command import online

    online(arguments.config, arguments.set, arguments.source, arguments.run, arguments.publish or "", arguments.once, arguments.accept)


def _status(arguments: argparse.Namespace) -> None:
    from dmoe.cli.view import show_view
    from dmoe.online.status import status, status_document

    found = status(arguments.of)
    show_view(status_document(found, max(arguments.last, 1)), arguments.output, found if arguments.json else None)


def _tokens(arguments: argparse.Namespace) -> None:
    from dmoe.json_text import format_json
    from dmoe.online.status import status
    from dmoe.online.vocabulary import folder_of, look_up

    name = status(arguments.of)["vocabulary"]
    if not name:
        raise UserError(f"{arguments.of}: has learned from no window yet, so no token has a row")
    for told in look_up(folder_of(arguments.of, name), arguments.feature, arguments.token):
        show(format_json(told, ensure_ascii=False))


def _rollback(arguments: argparse.Namespace) -> None:
    from dmoe.online.rollback import roll_back

    show(roll_back(arguments.of, arguments.to, arguments.published))
