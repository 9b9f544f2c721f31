"""Shuffle the rows of every split, globally, into a new data set."""

import argparse

from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="D", help="the data set's folder")
    parser.add_argument("--output", required=True, metavar="D2", help="folder of the shuffled data set")
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--rows-per-shard", type=int, default=524_288, help="rows of a shard, about (524288)")
    parser.add_argument("--row-group-rows", type=int, default=32_768, help="rows of a parquet row group (32768)")
    parser.add_argument("--memory-limit", type=int, default=1024, metavar="MB", help="for the rows in memory (1024)")
    parser.add_argument("--workers", type=int, default=0, help="threads (one a core); the bytes do not depend on it")


def run(arguments: argparse.Namespace) -> None:
    import time

    from dmoe.data.progress import duration, peak_memory_mb
    from dmoe.data.shuffle import ShuffleOptions, shuffle
    from dmoe.malloc import keep_freed_memory

    keep_freed_memory()
    began = time.monotonic()
    options = ShuffleOptions(
        data=arguments.data,
        output=arguments.output,
        seed=arguments.seed,
        rows_per_shard=arguments.rows_per_shard,
        row_group_rows=arguments.row_group_rows,
        memory_limit=arguments.memory_limit << 20,
        workers=arguments.workers,
    )
    manifest, there = shuffle(options)
    rows, seconds = sum(split.rows for split in manifest.splits.values()), time.monotonic() - began
    if there:
        show(f"{arguments.output}: made by this command before, nothing to do")
    else:
        shards = sum(len(split.shards) for split in manifest.splits.values())
        speed = f"{duration(seconds)}, {rows / seconds:,.0f} rows/s, peak memory {peak_memory_mb():,.0f} MB"
        show(f"{arguments.output}: {rows:,} rows in {shards} shard{'s' * (shards != 1)}; {speed}")
