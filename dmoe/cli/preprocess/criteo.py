"""Label, I1..I13, C1..C26: tab-separated, or CSV with a header."""

import argparse

from dmoe.cli.preprocess.common import PATHS_HELP, add_every_formats_options, given_to_every_format
from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", nargs="+", required=True, metavar="F", help=PATHS_HELP)
    parser.add_argument("--output", required=True, metavar="D", help="folder of the data set, local or s3://")
    ids = parser.add_argument_group("ids")
    ids.add_argument("--min-count", type=int, default=10, help="rows of the train split that earn a token its own id (10)")
    ids.add_argument("--vocabulary", metavar="D", help="keep the ids of this data set")
    ids.add_argument(
        "--new-tokens",
        choices=("rare", "append"),
        default="rare",
        help="tokens that --vocabulary lacks: rare, or ids behind its own (rare)",
    )
    ids.add_argument(
        "--ids", choices=("counted", "hash"), default="counted", help="by count, or by hash, which needs no counting (counted)"
    )
    ids.add_argument("--hash-size", metavar="N[,C6=N]", help="rows of a table for --ids hash")
    rows = parser.add_argument_group("splits")
    rows.add_argument("--split", default="0.8,0.1,0.1", help="shares of train, validation and test (0.8,0.1,0.1)")
    rows.add_argument(
        "--split-by",
        choices=("random", "time", "day"),
        default="random",
        help="by a hash of seed and row, in the log's order, or by file, one a day: the last day's halves are validation and test",
    )
    rows.add_argument("--validation-days", type=int, default=0, help="of --split-by day: whole days before the test days")
    rows.add_argument("--test-days", type=int, default=0, help="of --split-by day: whole days at the end")
    rows.add_argument("--seed", type=int, default=0, help="of the random split (0)")
    rows.add_argument("--scoring", action="store_true", help="one split, 'score', of all rows; the log needs no labels")
    parser.add_argument(
        "--workers", type=int, default=0, help="threads, or Ray tasks at a time (one a core); the bytes do not depend on it"
    )
    parser.add_argument("--memory-limit", type=int, default=512, metavar="MB", help="for the tables of counts (512), of each Ray task's")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="threads of this process, or Ray's workers (local)")
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="a Ray cluster; auto: this node's (one is started on this machine)")
    parser.add_argument("--share", metavar="I/N", help="parse one share of N on a shared disk; 0/N waits for the others and does the rest")
    parser.add_argument("--stay", action="store_true", help="end a share other than 0 when the data set is made, not before")
    add_every_formats_options(parser)


def run(arguments: argparse.Namespace) -> None:
    # Not at the top: --help must not wait for numba and pyarrow.
    from dmoe.data.preprocess import Options, preprocess
    from dmoe.data.share import parse_share, read_share
    from dmoe.data.summary import summarize
    from dmoe.malloc import keep_freed_memory

    keep_freed_memory()
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("run", "format", "input", "block_kb", "memory_limit", "share", "stay")
    }
    options = Options(**given, **given_to_every_format(arguments))
    if arguments.share:
        share = read_share(arguments.share)
        parse_share(options, share, arguments.stay)
        if share.index:
            return
    show(summarize(preprocess(options), arguments.output, arguments.vocabulary))
