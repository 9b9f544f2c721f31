"""Peak memory of a training process beside what it needs, and beside what `dmoe.train` says at its start that it expects.

python -m tools.bench.memory --rows 100000 --features 26 --threads 1
python -m tools.bench.memory --config configs/demo.yaml --set data.path=.demo/data

Every case runs in a process of its own, one rank. What imports and a first step of next to no tables and rows take is measured in
another process and taken off. Needed are tables, their optimizer's state, the dense part with gradients and state, and one batch's
activations (dmoe/model/budget/cost.py, which adds them up on the meta device). The peak is the kernel's: after the steps, after an
evaluation of as many rows, and after a checkpoint that a thread writes from a copy.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from tools.bench.results import ROOT, add_set, announce, loads, parser

SMALL = ["--rows=64", "--batch=64"]


def main() -> None:
    from tools.bench.case import add_arguments

    options = parser(__doc__)
    add_arguments(options)
    options.add_argument("--config", help="an experiment in place of the benchmark's model; its data set is read")
    add_set(options)
    options.add_argument("--steps", type=int, default=6)
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        print(json.dumps(peaks(arguments)))
        return

    announce()
    given = [one for one in sys.argv[1:] if one != "--child"]
    found = child(given)
    small = [*given, *SMALL] if not arguments.config else [*given, "--set", "train.batch_size=64", "train.eval_batch_size=64"]
    bare = child(small)
    # What the small case itself needs is next to nothing beside its imports, but it is not nothing.
    base = bare["steps"] - bare["needed"]
    tables = f"tables and their state {found['tables'] / 2**20:,.0f}"
    print(f"needed {found['needed'] / 2**20:,.0f} MiB ({tables}); imports {base / 2**20:,.0f} MiB")
    for name in ("built", "steps", "evaluation", "checkpoint"):
        over, said = found[name] - base, found["needed"] + (found["copied"] if name == "checkpoint" else 0)
        told = f"{over / found['needed']:.2f} of what is needed, {over / said:.2f} of what dmoe.train expects"
        print(f"peak after {name:10} {over / 2**20:8,.0f} MiB: {told}")
    print(f"load {loads()}")


def child(arguments: list[str]) -> dict[str, float]:
    """What `--child` prints, its errors on the screen."""
    command = [sys.executable, "-m", "tools.bench.memory", *arguments, "--child"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def peaks(arguments: argparse.Namespace) -> dict[str, float]:
    """Bytes: what is needed, and the process's peaks."""
    import itertools
    import tempfile

    import torch
    import torch.distributed as dist

    from dmoe.train.output.log_filters import quiet

    quiet()
    from dmoe.checkpoint.writer import CheckpointWriter
    from dmoe.config.config import load_config
    from dmoe.data.dataset.manifest import load_manifest
    from dmoe.model.budget.cost import cost_of
    from dmoe.train.evaluate import evaluate
    from dmoe.train.rehearsal.measure import resident_bytes
    from dmoe.train.run.run_dir import RunDir
    from dmoe.train.session import open_session
    from tools.bench.case import case_of, config_of, forever, make_batches, manifest_of
    from tools.bench.evaluate import Made

    case = case_of(arguments)
    torch.set_num_threads(case.threads)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    if arguments.config:
        config = load_config(arguments.config, arguments.set)
        manifest = load_manifest(config.data.path)
    else:
        config, manifest = config_of(case, f"train.eval_batch_size={case.batch}", *arguments.set), manifest_of(case)
    cost = cost_of(config, manifest)
    session = open_session(config, manifest, torch.device("cpu"))
    found: dict[str, float] = {"needed": cost.training_bytes(config.train.batch_size, 1), "built": resident_bytes(peak=True)}
    checkpoint = config.train.checkpoint
    copied = cost.checkpoint_bytes(1)
    found["copied"] = copied if checkpoint.asynchronous and copied <= checkpoint.copy_gib * 2**30 else 0
    found["tables"] = cost.embedding_bytes + cost.table_state_bytes
    reader: Any = session.reader(config.data.train_split) if arguments.config else Made(case, case.batch * arguments.steps)
    batches = reader.batches(config.train.batch_size, 0, 1) if arguments.config else forever(make_batches(case, 0))
    session.sharded.train()
    few = itertools.islice(batches, arguments.steps)
    for _ in range(arguments.steps):
        session.pipeline.progress(few)
    found["steps"] = resident_bytes(peak=True)
    evaluate(session, reader)
    found["evaluation"] = resident_bytes(peak=True)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(folder)
        run.create(config, manifest, session.plan)
        parts = (session.sharded, session.tables, session.dense, session.optimizers)
        writer = CheckpointWriter(run.path, *parts, config.train.checkpoint)
        writer.save({"step": arguments.steps, "best_step": arguments.steps})
        writer.finish()
        found["checkpoint"] = resident_bytes(peak=True)
    return found


if __name__ == "__main__":
    main()
