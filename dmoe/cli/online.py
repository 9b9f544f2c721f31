"""Follow a log that grows: test each window, then train on it, watch, publish. Started again, it goes on where it was.

dmoe online --config online.yaml --source logs/ --run runs/live --publish published
torchrun --nproc-per-node 2 -m dmoe.online --config online.yaml --source logs/ --run runs/live
dmoe online status runs/live
"""

import argparse

from dmoe.errors import UserError

RUNS_ON_RANKS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="the experiment with its `online` part: a YAML file, or the name of a config that dmoe ships")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override values of the config")
    parser.add_argument("--source", metavar="S", help="a folder, glob or prefix that fills with files")
    parser.add_argument("--run", metavar="R", help="local folder of the run: ledger, checkpoints, vocabularies")
    parser.add_argument(
        "--publish", metavar="P", help="folder, local or remote, that gets versions for dmoe serve, and a pointer to the newest"
    )
    parser.add_argument("--once", action="store_true", help="take what is there, and end")
    parser.add_argument(
        "--accept", type=int, default=0, metavar="WINDOW", help="learn from this quarantined window next, whatever the watch says"
    )


def run(arguments: argparse.Namespace) -> None:
    if absent := [name for name in ("config", "source", "run") if not getattr(arguments, name)]:
        raise UserError(f"--{absent[0]}: is missing; dmoe online needs --config, --source and --run")
    from dmoe.train.log_filters import quiet

    quiet()
    from dmoe.online.command import online

    online(arguments.config, arguments.set, arguments.source, arguments.run, arguments.publish or "", arguments.once, arguments.accept)
