"""What a switch does to AUC, log loss, CPU seconds and bytes sent: every setting trained with every seed, one epoch each, seeds paired.

torchrun --nproc-per-node 2 -m tools.bench.switches --config configs/demo.yaml --set data.path=.demo/data --seeds 3 \
    --switch train.precision=bf16 --switch sharding.comm_precision=fp16

All ranks on one machine, so that rank 0's CPU seconds and bytes stand for each rank's. The first setting is the config as it is.
"""

import statistics
import time
from typing import Any

from tools.bench.results import add_set, announce, loads, parser


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", required=True)
    add_set(options)
    options.add_argument("--switch", action="append", default=[], metavar="KEY=VALUE", help="a setting to compare; repeatable")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    arguments = options.parse_args()

    import torch

    from dmoe import distributed
    from dmoe.train.output.log_filters import quiet

    quiet()
    torch.set_num_threads(arguments.threads)
    device = distributed.start()
    settings = {"as it is": []} | {switch: [switch] for switch in arguments.switch}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    if distributed.rank() == 0:
        announce()
    for seed in range(arguments.seeds):
        for name, switch in settings.items():
            figures = trained(arguments.config, [*arguments.set, *switch, f"train.seed={seed}"], device)
            results[name].append(figures)
            if distributed.rank() == 0:
                print(f"  seed {seed} {name:32} " + "  ".join(f"{key} {value:.6g}" for key, value in figures.items()), flush=True)
    if distributed.rank() == 0:
        table(results, loads())
    distributed.stop()


def trained(path: str, overrides: list[str], device: Any) -> dict[str, float]:
    """One epoch on the training split, then the test split."""
    from dmoe import distributed
    from dmoe.config.config import load_config
    from dmoe.data.dataset.manifest import load_manifest
    from dmoe.train.evaluate import evaluate
    from dmoe.train.optimizer.schedule import Schedule
    from dmoe.train.rehearsal.collective_bytes import SentBytes
    from dmoe.train.session import open_session

    config = load_config(path, overrides)
    session = open_session(config, load_manifest(config.data.path), device)
    reader = session.reader(config.data.train_split, shuffled=True)
    steps = reader.steps(config.train.batch_size)
    batches = reader.batches(config.train.batch_size, distributed.rank(), distributed.world_size())
    schedule = Schedule(config.optimizer.schedule, steps)
    session.sharded.train()
    counted, sent, cpu = 4, 0.0, []
    for step in range(steps):
        session.optimizers.set_factor(schedule.factor(step))
        if step < counted:
            with SentBytes() as counter:
                session.pipeline.progress(batches)
            sent += sum(count for kind, count in counter.sent.items() if kind in ("all_to_all", "reduce_scatter", "all_gather")) / counted
        else:
            began = time.process_time()
            session.pipeline.progress(batches)
            cpu.append(time.process_time() - began)
    figures = evaluate(session, session.reader(config.data.test_split))
    return {"auc": figures["auc"], "logloss": figures["logloss"], "cpu_ms": statistics.median(cpu) * 1e3, "sent_kB": sent / 1e3}


def table(results: dict[str, list[dict[str, float]]], load: str) -> None:
    """Means over seeds, and the paired difference to the first setting with its standard error."""
    first = next(iter(results.values()))
    print("\n| setting | AUC | less the first's | log loss | CPU ms a step and rank | kB of tables' traffic a step and rank |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in results.items():
        differences = [run["auc"] - other["auc"] for run, other in zip(runs, first, strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
        mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        against = "-" if runs is first else f"{statistics.mean(differences):+.6f} +- {error:.6f}"
        print(f"| {name} | {mean['auc']:.5f} | {against} | {mean['logloss']:.5f} | {mean['cpu_ms']:.1f} | {mean['sent_kB']:.1f} |")
    print(f"{len(first)} seeds; load {load}")


if __name__ == "__main__":
    main()
