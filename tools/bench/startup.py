"""Time to the first training step and on what it is spent, and the time that every tool's `--help` takes.

    python -m tools.bench.startup

Each figure is the median over fresh processes, wall-clock and CPU; where the machine is busy only the second is worth much.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tools.bench.results import announce, loads

ROOT = Path(__file__).resolve().parents[2]
HELP_LIMIT = 0.5
STAGES = """
import json, sys, time
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
from dmoe.train.quiet import quiet
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
for name in ("build_model", "make_plan", "DistributedModelParallel", "initialize_tables"):
    def timed(*arguments, _call=getattr(parts, name), _name=name, **keywords):
        stage("session: the rest")
        try:
            return _call(*arguments, **keywords)
        finally:
            stage("session: " + _name)
    setattr(parts, name, timed)
session = parts.open_session(config, manifest, device)
stage("session: optimisers and pipeline")
session.sharded.train()
for step in (1, 2, 3):
    session.pipeline.progress(batches)
    stage(f"step {step}")
print(json.dumps(stages))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows a feature, which are initialised")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-step", action="store_true", help="only `--help`")
    arguments = parser.parse_args()
    announce()
    if not arguments.skip_step:
        first_step(arguments.rows, arguments.repeats)
    helps(arguments.repeats)


def first_step(rows: int, repeats: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "1"}
    runs = []
    for _ in range(repeats):
        command = [sys.executable, "-c", STAGES.replace("ROWS", str(rows))]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"to the first step, {rows:,} rows a feature, one thread (load {loads()})")
    for name in runs[0]:
        wall, cpu = (statistics.median(run[name][index] for run in runs) for index in (0, 1))
        print(f"  {name:42} {wall:7.2f} s  cpu {cpu:7.2f} s")
    print(f"  {'in all, to the first step':42} {statistics.median(until(run) for run in runs):7.2f} s")


def until(run: dict[str, list[float]]) -> float:
    return sum(wall for name, (wall, _) in run.items() if name not in ("step 2", "step 3") and "not part" not in name)


def helps(repeats: int) -> None:
    files = [*sorted(ROOT.glob("tools/*.py"))]
    commands = [[str(file.relative_to(ROOT))] for file in files] + [["-m", "dmoe.train"], ["-m", "dmoe.evaluate"]]
    print(f"--help, limit {HELP_LIMIT} s of CPU")
    for command in commands:
        walls, cpus = [], []
        for _ in range(repeats):
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            code = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True).returncode
            walls.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        cpu = statistics.median(cpus)
        verdict = "" if cpu < HELP_LIMIT and not code else f"  EXIT CODE {code}" if code else "  OVER THE LIMIT"
        print(f"  {' '.join(command):28} {statistics.median(walls):6.2f} s  cpu {cpu:6.2f} s  load {loads()}{verdict}")


if __name__ == "__main__":
    main()
