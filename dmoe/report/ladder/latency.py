"""Measures the latency of each variant of a ladder. The run of the first seed is exported, and the scorers are called in turn."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, ValidationError

from dmoe.checkpoint.of_run import best_step
from dmoe.config.strict import Open
from dmoe.errors import UserError
from dmoe.json_text import format_json
from dmoe.model.budget.cost import Cost
from dmoe.model.budget.sizes import human
from dmoe.report.ladder.runner import Job
from dmoe.report.ladder.spec import LadderSpec
from dmoe.report.latency import BATCHES, Latency, measure, together
from dmoe.serve.export.export import export
from dmoe.serve.scorer import Scorer
from dmoe.storage.paths import inside, join, read_bounded, write_text

MAX_BYTES = 16 << 20
FILE, FOLDER = "latency.json", ".scorers"
FREE_SHARE = 0.5
"""No scorers are made if they would need more than this share of the free disk space."""


class _Calls(Open):
    size: int = Field(ge=0)
    calls: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]]


class _Kept(Open):
    """The file that `latencies` writes."""

    asked: dict[str, Any]
    found: dict[str, _Calls]


def latencies(
    spec: LadderSpec, jobs: Sequence[Job], costs: dict[str, Cost], output: str, rounds: int, say: Callable[[str], None]
) -> dict[str, Latency]:
    """The latency of each variant. That of an ensemble is the sum over its members. The result is stored in OUTPUT/latency.json, and
    measured again if the runs or `rounds` have changed. Variants without a finished run or without a checkpoint are left out."""
    steps: dict[str, tuple[str, int]] = {}
    for job in jobs:
        if job.finished and job.variant not in steps:
            try:
                steps[job.variant] = job.run, best_step(job.run)
            except UserError:
                say(f"{job.name}: no checkpoint, so its latency is not measured")
    if not steps:
        return {}
    # With lists, not tuples, as JSON returns it.
    asked = {"rounds": rounds, "runs": {name: list(one) for name, one in steps.items()}}
    found = _kept(output, asked)
    if found is None:
        needed = sum(costs[name].scorer_bytes("fp32") for name in steps)
        if needed > FREE_SHARE * shutil.disk_usage(output).free:
            say(f"latency is not measured: the scorers would take {human(needed)}; export them elsewhere, then tools/bench/latency.py")
            return {}
        found = _measured(steps, output, rounds, say)
        kept = {"asked": asked, "found": {name: asdict(one) for name, one in found.items()}}
        write_text(inside(output, FILE), format_json(kept))
    for name, one in spec.ensembles.items():
        if all(member in found for member in one.of):
            found[name] = together([found[member] for member in one.of])
    return found


def _measured(steps: dict[str, tuple[str, int]], output: str, rounds: int, say: Callable[[str], None]) -> dict[str, Latency]:
    folder = inside(output, FOLDER)
    say(f"latency: {len(steps)} scorers, {rounds} calls of each size")
    try:
        scorers = {}
        for name, (run, step) in steps.items():
            export(run, join(folder, name), step=step)
            scorers[name] = Scorer(join(folder, name), verify=False)
        return measure(scorers, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kept(output: str, asked: dict[str, object]) -> dict[str, Latency] | None:
    path = join(output, FILE)
    if not os.path.exists(path):
        return None
    try:
        kept = _Kept.model_validate_json(read_bounded(path, MAX_BYTES, "ladder's latencies"))
    except ValidationError:
        return None
    found = {name: Latency(one.size, {int(rows): calls for rows, calls in one.calls.items()}) for name, one in kept.found.items()}
    whole = all(set(BATCHES) <= set(one.calls) for one in found.values())
    return found if whole and kept.asked == asked else None
