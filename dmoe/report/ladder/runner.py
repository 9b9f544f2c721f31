"""Trains the unfinished runs of a ladder, several at a time, on this machine or as torchx jobs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from dmoe.config.config import Config, dump_config, load_config
from dmoe.errors import USER_ERROR, UserError
from dmoe.report.ladder.spec import LadderSpec, resolve
from dmoe.report.ladder.worker import Worker
from dmoe.report.runs import load_figures
from dmoe.storage.paths import PATHS, inside, write_text

NOT_THE_MODEL = (
    "run.",
    "sharding.",
    "variant",
    "data.prefetch",
    "train.log_every",
    "train.checkpoint.",
    "metrics.abundance",
    "distill.teachers",
)
"""Settings that may differ between a finished run and the current config."""


@dataclass(frozen=True)
class Job:
    """One run: a variant with a seed. `teacher` is a run that must finish before this one; empty for none."""

    variant: str
    seed: int
    config: str
    run: str
    teacher: str = ""

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return PATHS.exists(inside(self.run, "metrics.json"))


def make_jobs(spec: LadderSpec, path: str, seeds: Iterable[int], overrides: list[str], output: str) -> list[Job]:
    """Checks and writes the configs of all runs before the first is trained. Jobs are ordered by seed, so that variants can be compared
    before all seeds are finished.

    Raises:
        UserError: an inconsistent config, or a run in `output` that was trained with other settings.
    """
    jobs, texts = [], []
    for seed in seeds:
        for name in spec.variants:
            run = inside(output, "runs", name, f"seed-{seed}")
            teacher = spec.variants[name].teacher
            teacher = teacher and inside(output, "runs", teacher, f"seed-{seed}")
            config = resolve(spec, path, name, seed, overrides, run, teacher)
            check_same(config, run)
            jobs.append(Job(name, seed, inside(output, "configs", name, f"seed-{seed}.yaml"), run, teacher))
            texts.append(dump_config(config))
    for job, text in zip(jobs, texts, strict=True):
        PATHS.mkdirs(job.config.rpartition("/")[0])
        write_text(job.config, text)
    return jobs


def check_same(config: Config, run: str) -> None:
    """Checks that a run in this folder, if there is one, was trained with the settings of this config.

    Raises:
        UserError: names the first setting that differs.
    """
    kept = inside(run, "config.yaml")
    if not PATHS.exists(kept):
        return
    before, now = _flat(load_config(kept).model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    for key in sorted(before | now):
        if not key.startswith(NOT_THE_MODEL) and before.get(key) != now.get(key):
            raise UserError(
                f"--output: {run} was trained with {key} {before.get(key)!r}, now it is {now.get(key)!r}; delete that run, or"
                " choose another folder"
            )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return leaves


def train_all(jobs: list[Job], workers: int, threads: int, say: Callable[[str], None]) -> dict[str, str]:
    """Trains the unfinished runs, `workers` at a time.

    Returns:
        Name of each failed run -> reason. The other runs are finished.
    """
    waiting = [job for job in jobs if not job.finished]
    say(f"{len(jobs)} runs, {len(jobs) - len(waiting)} finished already; {min(workers, len(waiting))} at a time, {threads} thread(s) each")
    failed: dict[str, str] = {}
    busy: dict[Connection, tuple[Worker, Job, float]] = {}
    idle: list[Worker] = []
    began, done, total = time.perf_counter(), 0, len(waiting)
    try:
        while waiting or busy:
            training = {job.run for job in waiting} | {job.run for _, job, _ in busy.values()}
            while len(busy) < workers and (job := next((one for one in waiting if one.teacher not in training), None)):
                waiting.remove(job)
                worker = idle.pop() if idle else Worker(threads)
                worker.send(job.config, job.run)
                busy[worker.connection] = (worker, job, time.perf_counter())
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                worker, job, started = busy.pop(ready)
                problem, done = worker.result(), done + 1
                if worker.fit:
                    idle.append(worker)
                else:
                    worker.close()
                left = (time.perf_counter() - began) / done * (total - done)
                if problem:
                    failed[job.name] = f"{problem} (log: {job.run}.log)"
                what = f"FAILED: {problem}" if problem else headline(job.run)
                say(f"[{done}/{total}] {job.name}: {what}  {time.perf_counter() - started:.0f} s, about {left / 60:.0f} min left")
    finally:
        for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
            worker.close()
    return failed


def headline(run: str) -> str:
    """AUC and CEC of a finished run."""
    figures = load_figures(inside(run, "metrics.json"))
    auc, cec = ("none" if value is None else f"{value:.{digits}f}" for value, digits in ((figures["auc"], 5), (figures.get("cec"), 4)))
    return f"AUC {auc}  CEC {cec}"


def submit_all(jobs: list[Job], scheduler: str, arguments: list[str], say: Callable[[str], None]) -> None:
    """Submits each unfinished run as a torchx job. A local scheduler returns when the job has ended, a cluster scheduler when it is queued.

    Raises:
        UserError: torchx refused a job.
    """
    root = Path(__file__).resolve().parents[3]
    torchx = str(Path(sys.executable).parent / "torchx")
    for job in jobs:
        if job.finished:
            continue
        if job.teacher and not PATHS.exists(inside(job.teacher, "metrics.json")):
            say(f"{job.name}: waits for its teacher {job.teacher}; once that has ended, the same command hands it over")
            continue
        command = [torchx, "run", "--scheduler", scheduler, "launch/components.py:train", "--config", os.path.abspath(job.config)]
        command += ["--run", os.path.abspath(job.run), "--resume", "True", *arguments]
        say(f"{job.name}: {' '.join(command)}")
        # torchx starts the ranks as `python`, which must be that of this environment.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        code = subprocess.run(command, cwd=root, env={**os.environ, "PATH": path, "PYTHONPATH": str(root)}, check=False).returncode
        if code:
            raise UserError(f"torchx could not run {job.name} (exit code {code or USER_ERROR}); its message is above")
