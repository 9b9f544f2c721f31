"""Write raw click logs with known click probabilities, for demos, tests and benchmarks.

dmoe synthesize criteo --rows 1000000 --seed 0 --output log.tsv
dmoe synthesize drift --windows 24 --rows 50000 --output logs
"""

import argparse
import time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    criteo = formats.add_parser("criteo", help="tab-separated label, I1..I13, C1..C26, as Criteo's Kaggle log")
    criteo.add_argument("--rows", type=int, required=True)
    criteo.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    criteo.add_argument("--output", required=True, metavar="F", help="the log; compressed where it ends in .gz or .zst")
    criteo.add_argument("--scale", type=float, default=1.0, help="vocabulary sizes relative to the Kaggle log's (default 1)")
    criteo.add_argument("--bayes-auc", type=float, default=0.81, help="AUC of a model that knows the true probabilities (default 0.81)")
    criteo.add_argument("--bad-share", type=float, default=0.0, help="share of malformed lines to add (default 0)")
    criteo.add_argument("--truth", metavar="F2", help="write the true click probabilities to this file (npy, float64)")
    drift = formats.add_parser("drift", help="one file for each window; tokens appear, disappear and change their effect; for dmoe online")
    drift.add_argument("--windows", type=int, required=True)
    drift.add_argument("--rows", type=int, required=True, help="rows of each window")
    drift.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    drift.add_argument("--output", required=True, metavar="D", help="folder for the files, schema.yaml and truth.json")
    drift.add_argument(
        "--tokens",
        type=int,
        default=2000,
        help="number of items at a time; there are four times as many users, and a tenth of sites (2000)",
    )
    drift.add_argument("--turnover", type=float, default=0.08, help="share of the tokens that are replaced in each window (0.08)")
    drift.add_argument("--speed", type=float, default=0.08, help="radians by which the effect of a token rotates in each window (0.08)")


def run(arguments: argparse.Namespace) -> None:
    if arguments.format == "drift":
        _drift(arguments)
        return
    # Not at the top: --help must not wait for numba.
    from dmoe.testing.synthesize import synthesize

    began = time.monotonic()
    made = synthesize(
        arguments.output,
        arguments.rows,
        arguments.seed,
        scale=arguments.scale,
        bayes_auc=arguments.bayes_auc,
        bad_share=arguments.bad_share,
        truth_path=arguments.truth,
    )
    seconds = time.monotonic() - began
    print(f"{arguments.output}: {made.rows:,} rows, {made.bytes / 1e6:,.1f} MB of text, positive rate {made.positive_rate:.4f}")
    print(
        f"Bayes-optimal on these rows: AUC {made.bayes_auc:.4f} (expected {made.expected_bayes_auc:.4f}), logloss {made.bayes_logloss:.4f}"
    )
    print(f"{seconds:.1f} s, {made.rows / seconds:,.0f} rows/s")


def _drift(arguments: argparse.Namespace) -> None:
    from dmoe.testing.drift import write_drift

    given = (arguments.seed, arguments.tokens, arguments.turnover, arguments.speed)
    made = write_drift(arguments.output, arguments.windows, arguments.rows, *given)
    for one in made:
        print(f"{one.file}: {one.rows:,} rows, positive rate {one.positive_rate:.4f}, Bayes-optimal AUC {one.bayes_auc:.4f}")
