"""Turns raw click logs into a data set for training: parquet shards, vocabularies and a manifest.

    python tools/preprocess.py criteo --input day_*.tsv.gz --output data/criteo

Killed or interrupted, the same command continues where it was.
"""

import argparse
import sys

from dmoe.errors import run_command


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/preprocess.py", description="Turn raw click logs into a data set for training.")
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    criteo = formats.add_parser("criteo", help="label, I1..I13, C1..C26: tab-separated, or CSV with a header")
    criteo.add_argument("--input", nargs="+", required=True, metavar="F", help="files, folders or globs; plain, gzip or zstd")
    criteo.add_argument("--output", required=True, metavar="D", help="folder of the data set")
    criteo.add_argument("--min-count", type=int, default=10, help="rows of the train split that earn a token its own id (10)")
    criteo.add_argument("--split", default="0.8,0.1,0.1", help="shares of train, validation and test (0.8,0.1,0.1)")
    criteo.add_argument("--split-by", choices=("random", "time"), default="random", help="by a hash of seed and row, or in the log's order")
    criteo.add_argument("--seed", type=int, default=0, help="of the random split (0)")
    criteo.add_argument("--max-bad-share", type=float, default=0.001, help="fail where more of the lines are malformed (0.001)")
    criteo.add_argument("--rows-per-shard", type=int, default=524_288, help="rows of the log that a set of shards comes from (524288)")
    criteo.add_argument("--row-group-rows", type=int, default=32_768, help="rows of a parquet row group (32768)")
    criteo.add_argument("--workers", type=int, default=0, help="threads (one a core); the bytes do not depend on it")
    criteo.add_argument("--memory-limit", type=int, default=512, metavar="MB", help="for the tables of counts (512)")
    criteo.add_argument("--block-kb", type=int, default=8192, help="text parsed at once (8192); the bytes do not depend on it")
    criteo.add_argument("--overwrite", action="store_true", help="replace the data set that the output folder holds")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    # Not at the top: --help must not wait for numba and pyarrow.
    from dmoe.data.heap import keep_freed_memory
    from dmoe.data.preprocess import Options, preprocess
    from dmoe.data.summary import summarize

    keep_freed_memory()
    options = Options(
        inputs=args.input,
        output=args.output,
        min_count=args.min_count,
        split=args.split,
        split_by=args.split_by,
        seed=args.seed,
        rows_per_shard=args.rows_per_shard,
        row_group_rows=args.row_group_rows,
        max_bad_share=args.max_bad_share,
        block_bytes=args.block_kb << 10,
        workers=args.workers,
        memory_limit=args.memory_limit << 20,
        overwrite=args.overwrite,
    )
    print(summarize(preprocess(options), args.output))


if __name__ == "__main__":
    sys.exit(run_command("tools/preprocess.py", main))
