"""What an A/B test says: exposures of `dmoe serve --split` joined with clicks. It may be read every day.

dmoe ab read --exposures exposures --clicks clicks.csv --plan plan.json --output page.html

Clicks are CSV or parquet: `request_id` and, where requests have several rows, `row`; or `unit` and `time`. A `time` beside the
request bounds the window: ISO or seconds since 1970, UTC where it names no zone.
"""

import argparse

from dmoe.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exposures", required=True, metavar="E", help="folder of exposures, or one file")
    parser.add_argument("--clicks", required=True, nargs="+", metavar="C", help="CSV or parquet files of clicks")
    parser.add_argument("--window", default="1h", metavar="T", help="after an exposure in which a click counts: 30m, 24h, 7d (%(default)s)")
    parser.add_argument("--plan", metavar="FILE", help="of `dmoe ab plan --output`: metric, alpha and the difference to find")
    parser.add_argument("--metric", choices=["clicks", "logloss"], default="clicks", help="that decides, without --plan (%(default)s)")
    parser.add_argument("--alpha", type=float, default=0.05, metavar="X", help="two-sided, without --plan (%(default)s)")
    parser.add_argument("--days", type=int, default=14, metavar="N", help="that the test is meant to last, without --plan (%(default)s)")
    parser.add_argument("--since", metavar="TIME", help="leave out earlier exposures, such as 2026-12-01")
    parser.add_argument("--until", metavar="TIME", help="up to which clicks are known (the last click)")
    parser.add_argument("--output", metavar="FILE", help="the HTML page to write")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.cli.view import show_view
    from dmoe.report.ab.join import join_outcomes
    from dmoe.report.ab.load import load_clicks, load_exposures, parse_time, parse_window
    from dmoe.report.ab.page import ab_document
    from dmoe.report.ab.plan import read_plan
    from dmoe.report.ab.read import read_test
    from dmoe.report.ab.words import as_tree

    if not 0 < arguments.alpha < 1 or arguments.days < 1:
        raise UserError("--alpha, --days: expected a number between 0 and 1, and at least one day")
    window = parse_window(arguments.window)
    since, until = (
        None if text is None else parse_time(text, name) for text, name in ((arguments.since, "--since"), (arguments.until, "--until"))
    )
    plan = read_plan(arguments.plan, f"--plan {arguments.plan}") if arguments.plan else None
    exposures, test = load_exposures(arguments.exposures, since, until)
    joined = join_outcomes(exposures, test, load_clicks(arguments.clicks), window, since, until)
    reading = read_test(joined, test, window, plan, arguments.metric, arguments.alpha, arguments.days)
    show_view(ab_document(reading), arguments.output, as_tree(reading) if arguments.json else None)
