"""The command of a ladder: trains the missing runs, then reports which conclusions the data supports."""

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from dmoe.config.config import load_config
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError, nearest, one_line
from dmoe.names import show
from dmoe.report.ladder.options import LadderOptions
from dmoe.report.ladder.runner import Job, make_jobs, submit_all, train_all
from dmoe.report.ladder.spec import LadderSpec, load_spec
from dmoe.storage.lock import take
from dmoe.storage.paths import inside, join, write_text

BYTES_A_PROCESS = 900 << 20
"""Memory of a process that has imported torch and TorchRec and trains a small model, without its tables."""


def run_ladder(options: LadderOptions) -> int:
    """Trains the unfinished runs of a ladder and writes OUTPUT/ladder.html, frontier.html, runs.csv and differences.csv.

    Returns:
        0, or 2 if a run failed; the report then has the other runs.

    Raises:
        UserError: a mistake in the specification or in the data, or another ladder command is running in the same folder.
    """
    path, output = options.config, options.output.rstrip("/")
    if options.seeds < 1 or min(options.first_seed, options.jobs, options.latency_rounds) < 0:
        raise UserError("--seeds, --first-seed, --jobs and --latency-rounds: expected at least one seed, and no negative number")
    if "://" in output:
        raise UserError(f"--output {output}: a ladder needs a local folder; give each run's run.dir to the cluster with --torchx")
    spec, variants = load_spec(path), [name for name in options.variants.split(",") if name]
    for name in variants:
        if name not in spec.variants:
            raise UserError(f"--variants: no variant '{one_line(name)}' in {path}{nearest(name, spec.variants)}")
    jobs = [job for job in make_jobs(spec, path, options.all_seeds, options.set, output) if not variants or job.variant in variants]
    config = load_config(jobs[0].config)
    manifest = load_manifest(config.data.path)
    try:
        lock = take(output)
    except BlockingIOError:
        raise UserError(f"--output {output}: another ladder is at work there; wait for it, or choose another folder") from None
    failed: dict[str, str] = {}
    try:
        if options.torchx and not options.report_only:
            submit_all(jobs, options.torchx, options.torchx_arg, show)
        elif not options.report_only:
            largest = max(cost.training_bytes(config.train.batch_size, 1) for cost in cost_of_all(spec, jobs).values())
            workers = options.jobs or fitting(largest)
            failed = train_all(jobs, workers, max(1, (os.cpu_count() or 1) // workers), show)
        if options.torchx and not all(job.finished for job in jobs):
            show("not all runs have ended yet; once they have, the same command with --report-only writes the report")
            return 0
        costs, served = cost_of_all(spec, jobs), {}
        if options.latency_rounds:
            from dmoe.report.ladder.latency import latencies

            served = latencies(spec, jobs, costs, output, options.latency_rounds, show)
        _write(spec, jobs, costs, served, output, _about(config.data.path, manifest, options.all_seeds, jobs))
    finally:
        os.close(lock)
    for name, problem in failed.items():
        show(f"dmoe report: {name}: {problem}", sys.stderr)
    return 2 if failed else 0


def fitting(bytes_a_run: int) -> int:
    """How many runs of this size can run at a time with the cores and free memory of this machine."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, int(0.8 * free // (BYTES_A_PROCESS + bytes_a_run))))


def cost_of_all(spec: LadderSpec, jobs: Sequence[Job]) -> dict[str, Any]:
    """The cost of each variant. The cost of an ensemble is the sum over its members."""
    from dmoe.model.budget.cost import cost_of, together

    configs = {job.variant: load_config(job.config) for job in jobs}
    costs = {name: cost_of(config, load_manifest(config.data.path)) for name, config in configs.items()}
    for name, one in spec.ensembles.items():
        if all(member in costs for member in one.of):
            costs[name] = together([costs[member] for member in one.of])
    return costs


def _about(data: str, manifest: Any, seeds: range, jobs: Sequence[Job]) -> list[str]:
    splits = ", ".join(
        f"{name} {split.rows:,} rows ({split.positives / max(split.rows, 1):.1%} clicks)" for name, split in manifest.splits.items()
    )
    return [
        f"Data: {manifest.dataset} in {data}, {splits}; {len(manifest.categorical)} categorical and {len(manifest.dense)}"
        " numeric features.",
        f"{len(jobs)} runs with seeds {seeds[0]} to {seeds[-1]}; a seed draws the initial weights and the order of the rows. Made by:"
        f" {shlex.join(sys.argv)}",
    ]


def _write(spec: LadderSpec, jobs: list[Job], costs: dict[str, Any], served: dict[str, Any], output: str, about: list[str]) -> None:
    from dmoe.report.ladder.csv_files import differences_csv, ladder_csv
    from dmoe.report.ladder.frontier import frontier_document
    from dmoe.report.ladder.page import ladder_document
    from dmoe.report.ladder.results import answer, collect
    from dmoe.report.ladder.verdicts import not_supported, supported

    ladder = collect(spec, jobs)
    answers = answer(ladder)
    files = {
        "ladder.html": ladder_document(ladder, answers, costs, about, served).html(),
        "frontier.html": frontier_document(ladder, costs, about, served).html(),
        "runs.csv": ladder_csv(ladder, costs, served),
        "differences.csv": differences_csv(answers),
    }
    for name, text in files.items():
        write_text(inside(output, name), text)
    for line in supported(ladder, answers) + not_supported(ladder, answers)[:1]:
        show(f"- {line}")
    show(f"pages: {join(output, 'ladder.html')}, {join(output, 'frontier.html')}")
