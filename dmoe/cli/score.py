"""Score a log with an exported scorer, in batches.

dmoe score --scorer scorers/dmoe --data data/criteo --split test --output scores.parquet
dmoe score --scorer scorers/dmoe --log tomorrow.csv.gz --output scores.parquet
"""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

from dmoe.errors import UserError
from dmoe.names import show
from dmoe.processes.alive import note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scorer", required=True, help="folder that dmoe export wrote")
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument("--data", help="a data set with the schema of the scorer, made by dmoe preprocess")
    rows.add_argument("--log", nargs="+", metavar="F", help="a raw log; labels are not needed")
    parser.add_argument("--vocabulary", metavar="D", help="with --log: the training data set (default: the copy in the scorer)")
    parser.add_argument("--max-bad-share", type=float, default=0.001, help="with --log: stop if more of the lines are malformed (0.001)")
    parser.add_argument("--rejects", metavar="F", help="with --log: folder for the malformed lines")
    parser.add_argument("--split", default="test", help="with --data: the split to score (test)")
    parser.add_argument(
        "--output",
        required=True,
        metavar="F",
        help="file for the score and logit of each row, and its label if known: CSV if the name ends in .csv, else parquet",
    )
    parser.add_argument("--batch-size", type=int, default=8192, help="rows of a batch (8192)")
    parser.add_argument("--threads", type=int, default=0, help="threads of the matrix products (all cores)")


def run(arguments: argparse.Namespace) -> None:
    if arguments.batch_size < 1 or arguments.threads < 0:
        raise UserError("--batch-size and --threads: expected positive numbers")
    note("loads PyTorch and the scorer")
    import torch

    from dmoe.data.dataset.manifest import load_manifest
    from dmoe.data.progress import Progress
    from dmoe.data.skew import shares_of, skew_lines
    from dmoe.report.statistics import logloss_rows, placements
    from dmoe.serve.encoding.raw_inputs import INPUTS
    from dmoe.serve.score_dataset import check_fits, score_split, write_scores
    from dmoe.serve.score_raw import made_from
    from dmoe.serve.scorer import Scorer
    from dmoe.storage.paths import join

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    scorer, vocabulary = Scorer(arguments.scorer), arguments.vocabulary
    if arguments.log and not vocabulary and scorer.about.reads_raw_rows:
        vocabulary = join(arguments.scorer, INPUTS)
    if arguments.log and vocabulary:
        # Check before the log is read, which takes long.
        check_fits(scorer.about, load_manifest(vocabulary), vocabulary)
    # The progress of preparation and scoring tells from here on.
    note("")
    began = time.perf_counter()
    with made_from(arguments.log, vocabulary, arguments.max_bad_share, arguments.rejects) as made:
        data, split = (made, "score") if made else (arguments.data, arguments.split)
        # An older scorer does not hold the shares of its training data; then those of --vocabulary are used.
        known = shares_of(load_manifest(vocabulary)) if vocabulary else {}
        known = scorer.about.shares or {name: one for name, one in known.items() if name in scorer.about.inputs}
        for line in skew_lines(known, load_manifest(data), ", ".join(arguments.log or [data])):
            show(line, sys.stderr)
        progress = Progress("score", load_manifest(data).split(split).rows)
        logits, labels = write_scores(arguments.output, _shown(score_split(scorer, data, split, arguments.batch_size), progress))
        progress.close()
    seconds = time.perf_counter() - began
    quality = "without labels"
    if labels is not None:
        both = min(int(labels.sum()), int((~labels).sum())) > 0
        auc = f"AUC {placements(logits, labels).mean:.5f}  " if both else ""
        quality = f"{auc}logloss {logloss_rows(logits, labels).mean():.5f}"
    show(f"{arguments.output}: {len(logits):,} rows, {quality}")
    print(f"{seconds:.2f} s, {len(logits) / seconds:,.0f} rows/s with {torch.get_num_threads()} thread(s), reading and writing included")


def _shown(parts: Iterator[Any], progress: Any) -> Iterator[Any]:
    """The same parts; progress is told of the rows of each."""
    for part in parts:
        progress.update(len(part[0]))
        yield part
