"""What the sub-commands share: all of them, and those for logs with a schema."""

import argparse
from typing import Any

from dmoe.names import show

PATHS_HELP = (
    "files, folders or globs, local or s3://; text plain, gzip, zstd, bz2, xz, or a zip or tar of one file; - alone is standard input"
)


def add_every_formats_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-bad-share", type=float, default=0.001, help="fail where more of the lines are malformed (0.001)")
    parser.add_argument("--rows-per-shard", type=int, default=524_288, help="rows of the log that a set of shards comes from (524288)")
    parser.add_argument("--row-group-rows", type=int, default=32_768, help="rows of a parquet row group (32768)")
    parser.add_argument("--block-kb", type=int, default=8192, help="text parsed at once (8192); the bytes do not depend on it")
    parser.add_argument("--work", metavar="W", help="local folder for the work in progress (D/.work)")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set that the output folder holds")


def given_to_every_format(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of dmoe.data.run_options.RunOptions that have other names or units on the command line."""
    return {"inputs": arguments.input, "block_bytes": arguments.block_kb << 10, "memory_limit": arguments.memory_limit << 20}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", nargs="+", required=True, metavar="F", help=PATHS_HELP)
    parser.add_argument("--output", required=True, metavar="D", help="folder of the data set, local or s3://")
    parser.add_argument("--vocabulary", metavar="D", help="keep this data set's ids, schema and numbers")
    parser.add_argument("--scoring", action="store_true", help="one split, `score`, of all rows, by --vocabulary; the log needs no labels")
    parser.add_argument("--seed", type=int, default=0, help="of the random split (0)")
    parser.add_argument("--workers", type=int, default=0, help="threads (one a core); the bytes do not depend on it")
    parser.add_argument("--memory-limit", type=int, default=512, metavar="MB", help="for the counts (512); more goes to disk")
    parser.add_argument("--engine", type=_engine, default="local", metavar="local", help="this process's threads; criteo knows Ray too")
    add_every_formats_options(parser)


def _engine(name: str) -> str:
    if name != "local":
        raise argparse.ArgumentTypeError(f"'{name}': this format runs on the threads of one process; criteo alone takes --engine ray")
    return name


def run(arguments: argparse.Namespace, **options: Any) -> None:
    from dmoe.data.log.options import LogOptions
    from dmoe.data.log.preprocess import preprocess_log
    from dmoe.data.summary import summarize
    from dmoe.malloc import keep_freed_memory

    keep_freed_memory()
    common = (
        "output",
        "vocabulary",
        "scoring",
        "seed",
        "max_bad_share",
        "rows_per_shard",
        "row_group_rows",
        "workers",
        "work",
        "overwrite",
    )
    options |= {name: getattr(arguments, name) for name in common}
    show(summarize(preprocess_log(LogOptions(**options, **given_to_every_format(arguments))), arguments.output, arguments.vocabulary))
