"""Plans every point of a grid and tells its step time, memory and cost, and where more ranks stop helping (the knee: ranks that do under
half the work of the best cluster's). Prices and dense speeds are assumptions of the presets'.
"""

import argparse
import sys
from typing import Any

from dmoe.cli.plan.common import add_json, add_model, model_of
from dmoe.cli.view import show_view, write_page
from dmoe.errors import UserError, nearest
from dmoe.names import cell, printable, show

LAYOUTS = ("auto", "wide", "separate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--clusters", required=True, help="comma-separated, such as 1x8:h100,2x8:h100,4x8:my_gpu.yaml")
    parser.add_argument("--batch-sizes", help="global batch sizes, comma-separated; the config's where absent")
    parser.add_argument("--experts", help="numbers of experts, comma-separated: the config's first ones, over again where it has fewer")
    parser.add_argument("--layouts", help="wide, separate or auto, comma-separated; the config's where absent")
    parser.add_argument("--output", help="a CSV file (or, where it ends in .json, a JSON file) of all points")
    parser.add_argument("--html", help="one self-contained page with pictures")
    add_json(parser, "print all points as JSON instead of the table")


def run(arguments: argparse.Namespace) -> None:
    batch_sizes, experts = _numbers(arguments.batch_sizes, "--batch-sizes"), _numbers(arguments.experts, "--experts")
    layouts = _parts(arguments.layouts, "--layouts")
    for layout in layouts:
        if layout not in LAYOUTS:
            raise UserError(f"--layouts: unknown layout '{layout}'{nearest(layout, LAYOUTS)}")
    model = model_of(arguments)
    from dmoe.data.progress import Progress
    from dmoe.sharding.planner.advice.sweep import Point, as_records, sweep
    from dmoe.sharding.planner.advice.sweep_page import sweep_document
    from dmoe.sharding.planner.cluster import parse_cluster
    from dmoe.sharding.planner.cost.table_use import groups_in, in_short, uses_of

    clusters = [parse_cluster(text) for text in _parts(arguments.clusters, "--clusters")]
    progress = Progress("sweep", unit="points")

    def told(done: int, total: int, point: Point) -> None:
        progress.total_rows, progress.note = total, f"{printable(point.cluster.name)} took {point.seconds:.1f} s"
        progress.update(1)
        if done == total:
            progress.close()

    groups = groups_in("" if arguments.cardinalities else model.config.data.path, model.manifest)
    points = sweep(model.config, model.manifest, clusters, batch_sizes, experts, layouts, told, groups)
    if all(point.problem.startswith("refused: ") for point in points):
        # A mistake of the config's rather than a lack of memory somewhere.
        raise UserError(points[0].problem.removeprefix("refused: "))
    records = as_records(points)
    measured = in_short(uses_of(groups, max(point.batch_size for point in points))) if groups else ""
    view = sweep_document(points, f"Sweep of {arguments.config}", measured)
    show_view(view, data=records if arguments.json else None)
    written = {arguments.output: _as_file(records, arguments.output), arguments.html: view.html() if arguments.html else ""}
    for path, text in written.items():
        if path:
            write_page(path, text)
            show(f"{path}: written", sys.stderr)


def _as_file(records: list[dict[str, Any]], path: str | None) -> str:
    import csv
    import io

    from dmoe.json_text import format_json

    if path and path.endswith(".json"):
        return format_json(records, indent=1) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) if isinstance(value, str) else value for key, value in record.items()} for record in records)
    return text.getvalue()


def _parts(text: str | None, flag: str) -> list[str]:
    parts = [part.strip() for part in (text or "").split(",")] if text is not None else []
    if "" in parts:
        raise UserError(f"{flag} {text}: an entry is empty; expected values with commas between them")
    return list(dict.fromkeys(parts))


def _numbers(text: str | None, flag: str) -> list[int]:
    from dmoe.names import whole_number

    numbers = []
    for part in _parts(text, flag):
        if not (number := whole_number(part.replace("_", ""))):
            raise UserError(f"{flag}: '{part}' is no whole number of at least 1")
        numbers.append(number)
    return numbers
