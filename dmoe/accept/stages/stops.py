"""Stages that run dmoe.train in new processes, as a user does: to the end, stopped and resumed, and with a lost rank."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from dmoe.accept.conductor import Job
from dmoe.accept.finding import Failed, Notes
from dmoe.accept.stages.training import WEIGHT_BOUND, data_folder
from dmoe.accept.supervisor import Answer

LOST, PREEMPTED = 3, 143
WATCH_SECONDS = 45
"""`run.timeout_seconds` of the runs: a rank without progress for this time counts as lost."""
OVERRIDES = (
    "train.epochs=1",
    "train.validations_per_epoch=2",
    "train.log_every=5",
    "train.guard.enabled=false",
    "metrics.predictions=true",
    "metrics.abundance=false",
    "data.prefetch=2",
    f"run.timeout_seconds={WATCH_SECONDS}",
)
MIDDLE, LAST, FAULT_STEP = 24, 47, 9
"""Steps of a run on the small data set: those of its two validations, and the step after which a rank is stopped or killed."""


def pipeline(job: Job, notes: Notes) -> None:
    """The stage `pipeline`: a run with prefetching, validations, checkpoints, a trace, a test and a scorer; then its second half is
    repeated on half the ranks."""
    run = undisturbed(job)
    figures = job.ranks.run(figures_of, run, size=1)[0]
    notes.at_least("test AUC", figures["auc"], 0.55)
    notes.hold(figures["steps"] == LAST, f"the run made {figures['steps']} steps, expected {LAST}")
    notes.hold(len(list(Path(run, "trace").glob("*.json"))) == job.ranks.size, "not every rank wrote its trace")
    notes.figure("samples a second while training", figures["samples_per_second"], "1/s")
    notes.figure("logits of the scorer beside the run's", job.ranks.run(scored, run, size=1)[0], "", "at most 0.0001")
    half = max(job.ranks.size // 2, 1)
    other = Path(job.shared, "half")
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("lock", "logs", "trace", "metrics.json", f"step-{LAST:09d}"))
    expect(train(job, str(other), resume=True, size=half), {0})
    compare(job, notes, run, str(other), half == job.ranks.size <= 2, f"resumed on {half} of {job.ranks.size} ranks")


def undisturbed(job: Job) -> str:
    """The folder of a run without interruption, which is made once.

    Raises:
        Failed: the run failed.
    """
    run = Path(job.shared, "run")
    if not (run / "metrics.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        expect(train(job, str(run), trace="3:2"), {0})
    return str(run)


def preemption(job: Job, notes: Notes) -> None:
    """The stage `preemption`: SIGTERM on one rank stops all ranks at the same step with a checkpoint. The resumed run must have the same
    result as an uninterrupted one."""
    run, stopped = undisturbed(job), str(Path(job.shared, "stopped"))
    fault = (job.ranks.size - 1, FAULT_STEP, int(signal.SIGTERM))
    expect(train(job, stopped, fault=fault), {PREEMPTED})
    steps = sorted(path.parent.name for path in Path(stopped, "checkpoints").glob("*/index.json"))
    notes.hold(len(steps) == 1, f"SIGTERM left {len(steps)} checkpoints, expected one")
    expect(train(job, stopped, resume=True), {0})
    compare(job, notes, run, stopped, job.ranks.size <= 2 and not job.on_gpu, "stopped and resumed")


def lost_rank(job: Job, notes: Notes) -> None:
    """The stage `lost rank`: if a rank is killed, all others must end by themselves in time, and the run must resume from a checkpoint."""
    run, broken = undisturbed(job), str(Path(job.shared, "broken"))
    every, last = "train.checkpoint.every_steps=4", job.ranks.size - 1
    answers = train(job, broken, every, fault=(last, FAULT_STEP, int(signal.SIGKILL)))
    if answers[last].value != -signal.SIGKILL:
        raise Failed(f"rank {last} was to be killed, but it {in_words(answers[last])}")
    others = {rank: answer for rank, answer in answers.items() if rank != last}
    # If NCCL's watchdog notices first, it aborts the process.
    for rank, answer in others.items():
        sound = answer.kind == "ended" and answer.value in (LOST, -signal.SIGABRT)
        notes.hold(sound, f"rank {rank} should have ended with exit code {LOST}, but it {in_words(answer)}")
    notes.figure("ranks that noticed the loss", sum(answer.kind == "ended" for answer in others.values()))
    expect(train(job, broken, every, resume=True), {0})
    compare(job, notes, run, broken, job.ranks.size <= 2 and not job.on_gpu, "killed and resumed")


def train(
    job: Job,
    run: str,
    *further: str,
    resume: bool = False,
    size: int | None = None,
    trace: str = "",
    fault: tuple[int, int, int] | None = None,
) -> dict[int, Answer]:
    """Runs `dmoe.train` to its end.

    Args:
        further: further overrides of the config.
        size: number of ranks; all by default.
        fault: (rank, step, signal): the rank sends itself the signal after this step.
    """
    config = f"{data_folder(job, 'clicks')}/config.yaml"
    overrides = [*OVERRIDES, f"run.dir={run}", *further]
    return job.ranks.ask(train_program, config, overrides, resume, trace, fault, size=size, apart=True)


def train_program(config: str, overrides: list[str], resume: bool, trace: str, fault: tuple[int, int, int] | None) -> None:
    """Runs `python -m dmoe.train` in this process, then exits."""
    from dmoe.train.command import train as run
    from dmoe.train.elastic.exit_codes import run_rank
    from dmoe.train.output.log_filters import quiet
    from dmoe.train.output.log_window import Window

    if fault is not None and int(os.environ.get("RANK", "0")) == fault[0]:
        add, done = Window.add, iter(range(1, 1 << 30))

        def noted(self: Any, losses: Any) -> None:
            add(self, losses)
            if next(done) == fault[1]:
                os.kill(os.getpid(), fault[2])

        Window.add = noted  # type: ignore[method-assign]
    quiet()
    sys.exit(run_rank("dmoe.train", lambda: run(config, overrides, resume, trace or None)))


def expect(answers: dict[int, Answer], codes: set[int]) -> None:
    """Checks the exit codes of all ranks.

    Raises:
        Failed: a rank did not end with one of these exit codes; the message has the end of its output.
    """
    for rank, answer in answers.items():
        if answer.kind != "ended" or answer.value not in codes:
            raise Failed(f"dmoe.train, rank {rank} of {len(answers)}: {in_words(answer)}")


def in_words(answer: Answer) -> str:
    lines = [line for line in answer.said.splitlines() if line.strip()]
    # Lines of dmoe.train say more than the last lines of libraries.
    last = ([line for line in lines if line.startswith("dmoe.train: ")] or lines or ["nothing"])[-1]
    how = {"late": "had not ended in time", "raised": f"raised {answer.value}", "ended": f"ended with exit code {answer.value}"}
    return f"{how.get(answer.kind, answer.kind)}; it said last: {last[:300]}"


def figures_of(run: str) -> dict[str, Any]:
    """The content of the run's metrics.json."""
    from dmoe.json_text import parse_json

    found: dict[str, Any] = parse_json(Path(run, "metrics.json").read_text())
    return found


def scored(run: str) -> float:
    """Exports the best checkpoint of a run and scores its test rows; returns the largest difference of a logit from the evaluation.

    Raises:
        UserError: the difference is above the bound of `dmoe export --check`.
    """
    import re

    from dmoe.serve.export.check import against_run
    from dmoe.serve.export.export import export

    export(run, f"{run}-scorer")
    told = against_run(run, f"{run}-scorer", 1 << 30)
    found = re.search(r"logits differ by (\S+) at most", told)
    if found is None:
        raise RuntimeError(told)
    return float(found[1])


def compare(job: Job, notes: Notes, straight: str, other: str, exact: bool, what: str) -> None:
    """Compares the last checkpoints of two runs: bit by bit if `exact`, else up to rounding."""
    equal, worst = job.ranks.run(checkpoints_apart, straight, other, size=1)[0]
    notes.within(f"{what}: largest difference of weights and states", worst, WEIGHT_BOUND)
    notes.figure(f"{what}: equal to the bit", equal, "", "1, promised here" if exact else "")
    notes.hold(equal or not exact, f"{what}: weights and states are not equal to the bit, as promised on so few ranks")


def checkpoints_apart(straight: str, other: str) -> tuple[bool, float]:
    """Whether the last checkpoints are bit-identical, and their largest difference relative to the largest number of a tensor."""
    import numpy as np

    from dmoe.checkpoint.contents import Contents

    a, b = (Contents(f"{run}/checkpoints/step-{LAST:09d}") for run in (straight, other))
    if sorted(a.names()) != sorted(b.names()):
        return False, float("inf")
    equal, worst = True, 0.0
    for name in a.names():
        x, y = (np.concatenate([np.atleast_1d(block) for block in one.blocks(name)]) for one in (a, b))
        equal = equal and np.array_equal(x, y)
        if x.size:
            worst = max(worst, float(np.abs(x.astype(np.float64) - y).max() / max(np.abs(x).max(), 1e-12)))
    return equal, worst
