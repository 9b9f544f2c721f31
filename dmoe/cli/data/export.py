"""Write a data set as torchrec's npy files, or as one npy file for each column."""

import argparse

from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="D", help="folder of the data set")
    parser.add_argument("--format", choices=("torchrec-npy", "columns-npy"), required=True)
    parser.add_argument("--output", required=True, metavar="F", help="folder for the files")
    parser.add_argument("--rows-per-part", type=int, default=0, help="for torchrec-npy: rows of each part of a split (0: one part)")
    parser.add_argument("--workers", type=int, default=0, help="threads (one for each core)")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.data.npy import export

    said = export(arguments.data, arguments.output, arguments.format, arguments.rows_per_part, arguments.workers)
    rows = sum(part["rows"] for part in said["parts"])
    show(f"{arguments.output}: {rows:,} rows in {len(said['parts'])} parts, {len(said['dense'])} + {len(said['sparse'])} columns")
    if said["left_out"]:
        show(f"  left out, since torchrec's layout has 26 sparse columns: {said['left_out'][0]} .. {said['left_out'][-1]}")
