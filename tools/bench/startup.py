"""Time to the first training step and on what it is spent, and the time that every tool's `--help` takes.

    python -m tools.bench.startup

Each figure is the median over fresh processes, wall-clock and CPU; where the machine is busy only the second is worth much.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from dmoe.cli.main import every_command
from tools.bench.results import announce, figure, loads, save

ROOT = Path(__file__).resolve().parents[2]
HELP_LIMIT = 0.5
STAGES = """
import json, time
began = [time.perf_counter(), time.process_time()]
stages = {}
def stage(name):
    now = [time.perf_counter(), time.process_time()]
    stages[name] = [now[0] - began[0], now[1] - began[1]]
    began[:] = now
import torch
stage("import torch")
import torchrec
stage("import torchrec")
import dmoe.train.session
stage("import dmoe")
import torch.distributed as dist
from dmoe.train.output.log_filters import quiet
from tools.bench.case import Case, config_of, forever, make_batches, manifest_of
torch.set_num_threads(1)
quiet()
case = Case(rows=ROWS)
config, manifest = config_of(case), manifest_of(case)
device = torch.device("cpu")
batches = forever(make_batches(case, 0))
stage("config and batches (not part of a run)")
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
stage("process group")
from dmoe.train import session as parts
for name in ("build_model", "kept_plan", "plan_from_json", "DistributedModelParallel", "initialize_tables"):
    def timed(*arguments, _call=getattr(parts, name), _name=name, **keywords):
        stage("session: the rest")
        try:
            return _call(*arguments, **keywords)
        finally:
            stage("session: " + _name)
    setattr(parts, name, timed)
session = parts.open_session(config, manifest, device)
stage("session: optimizers and pipeline")
session.sharded.train()
for step in (1, 2, 3):
    session.pipeline.progress(batches)
    stage(f"step {step}")
print(json.dumps(stages))
"""


@dataclass(frozen=True)
class Figure:
    """Medians over fresh processes, seconds. `limit` is of the CPU's, 0 where there is none."""

    part: str
    name: str
    wall: float
    cpu: float
    limit: float
    verdict: str

    def __str__(self) -> str:
        return f"  {self.name:46} {self.wall:7.2f} s  cpu {self.cpu:7.2f} s  {self.verdict}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows a feature, which are initialised")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-step", action="store_true", help="only `--help`")
    parser.add_argument("--output", default="", help="writes OUTPUT.csv and OUTPUT.png")
    arguments = parser.parse_args()
    announce()
    figures = [] if arguments.skip_step else first_step(arguments.rows, arguments.repeats)
    figures += helps(arguments.repeats)
    if arguments.output:
        save(figures, f"{arguments.output}.csv")
        draw(figures, f"{arguments.output}.png")


def first_step(rows: int, repeats: int) -> list[Figure]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "1"}
    runs: list[dict[str, list[float]]] = []
    for _ in range(repeats):
        command = [sys.executable, "-c", STAGES.replace("ROWS", str(rows))]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"a start failed: {done.stderr.strip()[-2000:]}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"to the first step, {rows:,} rows a feature, one thread (load {loads()})")
    figures = [
        Figure("to the first step", name, median(run[name][0] for run in runs), median(run[name][1] for run in runs), 0.0, "")
        for name in runs[0]
    ]
    sums = [median(sum(taken[i] for name, taken in run.items() if _counts(name)) for run in runs) for i in (0, 1)]
    figures.append(Figure("to the first step", "in all, to the first step", sums[0], sums[1], 0.0, ""))
    for figure_ in figures:
        print(figure_)
    return figures


def _counts(name: str) -> bool:
    return name not in ("step 2", "step 3") and "not part" not in name


def helps(repeats: int) -> list[Figure]:
    """Of every program."""
    print(f"--help, limit {HELP_LIMIT} s of CPU (load {loads()})")
    figures = []
    for program in (["-m", "dmoe", *words] for words in every_command()):
        walls, cpus, code = [], [], 0
        for _ in range(repeats):
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            code = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True).returncode or code
            walls.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        cpu = median(cpus)
        verdict = f"EXIT CODE {code}" if code else "" if cpu < HELP_LIMIT else "OVER THE LIMIT"
        figures.append(Figure("--help", " ".join(program), median(walls), cpu, HELP_LIMIT, verdict))
        print(figures[-1], flush=True)
    bad = [one for one in figures if one.verdict]
    print(
        f"{len(figures) - len(bad)} of {len(figures)} within {HELP_LIMIT} s of CPU: {'NOT REACHED' if bad else 'reached'} (load {loads()})"
    )
    return figures


def draw(figures: list[Figure], path: str) -> None:
    with figure(path, 1, 2) as axes:
        for axis, part in zip(axes[0], ("to the first step", "--help"), strict=True):
            here = [one for one in reversed(figures) if one.part == part and _counts(one.name)]
            axis.barh([one.name for one in here], [one.wall for one in here], color=["C3" if one.verdict else "C0" for one in here])
            axis.set_title(part, fontsize=8)
            axis.set_xlabel("s, wall-clock")
            axis.tick_params(labelsize=6)


if __name__ == "__main__":
    main()
