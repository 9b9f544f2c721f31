"""The engines of a scorer side by side, its products' floor, ONNX Runtime alone, and raw rows: what docs/serve.md tells of speed.

    tools/bench/engines.py scorers/dmoe --int8 scorers/dmoe_int8 --log day_0.tsv

All take turns call by call, on one thread. Of each: the medians of elapsed and of CPU time, which other processes disturb less, and the
medians of how many times as fast it was as the floor and as ONNX Runtime alone, by CPU time of the same turn. The floor is the matrix
products of the torch engine alone, on operands that are there already. `--processes 1 2` tells rows/s over cores instead.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmoe.errors import UserError, run_command

BATCHES = (1, 100, 256, 4096)
FLOOR, ALONE = "products alone (floor)", "ONNX Runtime alone"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench/engines.py", description="Time a scorer's engines.")
    parser.add_argument("scorer", help="a folder of dmoe export --format onnx")
    parser.add_argument("--int8", help="the same, of --products int8")
    parser.add_argument("--log", help="Criteo's text format: raw rows to encode and score")
    parser.add_argument("--rounds", type=int, default=40, help="calls of each number of rows; a fourth of them for the most (40)")
    parser.add_argument(
        "--processes", type=int, nargs="+", help="measure batches of 256 rows in so many processes at once instead, such as 1 2"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.processes:
        print(scaling(arguments.scorer, arguments.processes))
        return
    import torch

    from dmoe.report.document import in_columns
    from dmoe.serve.encoding.random_rows import draw
    from dmoe.serve.scorer import Scorer

    torch.set_num_threads(1)
    scorer, reference = Scorer(arguments.scorer, engine="onnx"), Scorer(arguments.scorer, engine="torch")
    others = {"int8 products": Scorer(arguments.int8, engine="onnx")} if arguments.int8 else {}
    logs = raw_rows(arguments.log) if arguments.log else None
    table = [["rows", "", "p50 ms", "CPU ms", "rows/s of CPU time", "of the floor", "of ONNX Runtime", "off by"]]
    for size in BATCHES:
        dense_BI, ids_BF, bags = draw(scorer, size, np.random.default_rng(size))
        floor = products_of(reference, dense_BI, ids_BF, bags)
        alone = plain_run(arguments.scorer, dense_BI, ids_BF, bags)
        calls: dict[str, Callable[[], Any]] = {
            FLOOR: floor,
            "torch": lambda d=dense_BI, i=ids_BF, b=bags: reference.logits(d, i, b),  # type: ignore[misc]
            ALONE: alone,
            "onnx": lambda d=dense_BI, i=ids_BF, b=bags: scorer.logits(d, i, b),  # type: ignore[misc]
        }
        for name, one in others.items():
            calls[name] = lambda d=dense_BI, i=ids_BF, b=bags, o=one: o.logits(d, i, b)  # type: ignore[misc]
        if logs:
            batches = cycle(logs, size)
            calls["onnx, raw rows"] = lambda some=batches: scorer.predict(next(some))  # type: ignore[misc]
        exact = calls["torch"]()
        off = {name: float(np.abs(call() - exact).max()) for name, call in calls.items() if name in ("onnx", "int8 products")}
        elapsed, busy = measure(calls, max(arguments.rounds // (4 if size > 1000 else 1), 3))
        for name in calls:
            mine = float(np.median(busy[name]))
            shares = [f"{np.median(busy[other] / busy[name]):.2f}" for other in (FLOOR, ALONE)]
            cells = [f"{1e3 * np.median(elapsed[name]):.3f}", f"{1e3 * mine:.3f}", f"{size / mine:,.0f}", *shares]
            table.append([f"{size:,}", name, *cells, f"{off[name]:.1g}" if name in off else ""])
    print(*in_columns(table[0], table[1:], rule=True, width=10_000), sep="\n")


def measure(calls: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Seconds of each in each turn: that passed, and of CPU time."""
    elapsed: dict[str, list[float]] = {name: [] for name in calls}
    busy: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 3):
        for name, call in calls.items():
            began, worked = time.perf_counter(), time.thread_time()
            call()
            if turn >= 3:
                busy[name].append(time.thread_time() - worked)
                elapsed[name].append(time.perf_counter() - began)
    return {name: np.array(found) for name, found in elapsed.items()}, {name: np.array(found) for name, found in busy.items()}


def scaling(folder: str, processes: Sequence[int], seconds: float = 5.0) -> str:
    """A table of rows/s, by the clock and by the processes' own CPU time, of one thread each; they map the same tables."""
    from dmoe.report.document import in_columns

    table, context = [["processes", "rows/s", "rows/s of CPU time, a process"]], multiprocessing.get_context("spawn")
    for count in processes:
        with context.Manager() as manager, context.Pool(count) as pool:
            begin = manager.Barrier(count)
            found = pool.starmap(score_for, [(folder, begin, seconds)] * count, chunksize=1)
        clock = sum(rows / passed for rows, passed, _ in found)
        own = sum(rows for rows, _, _ in found) / sum(busy for _, _, busy in found)
        table.append([str(count), f"{clock:,.0f}", f"{own:,.0f}"])
    return "\n".join(in_columns(table[0], table[1:], rule=True, width=10_000))


def score_for(folder: str, begin: Any, seconds: float) -> tuple[int, float, float]:
    """(rows, seconds that passed, CPU seconds) of a process that scores 256 rows again and again, from when all are ready."""
    import torch

    from dmoe.serve.encoding.random_rows import draw
    from dmoe.serve.scorer import Scorer

    torch.set_num_threads(1)
    scorer = Scorer(folder, engine="onnx")
    rows = draw(scorer, 256, np.random.default_rng(0))
    scorer.logits(*rows)
    begin.wait()
    began, worked, done = time.perf_counter(), time.thread_time(), 0
    while time.perf_counter() - began < seconds:
        scorer.logits(*rows)
        done += 256
    return done, time.perf_counter() - began, time.thread_time() - worked


def products_of(scorer: Any, dense_BI: np.ndarray, ids_BF: np.ndarray, bags: Any) -> Callable[[], object]:
    """The matrix products of the torch engine, and nothing beside."""
    import torch

    from dmoe.accept.stages.products import Recorder, Replay

    sets = [one.contiguous() for one in scorer.embeddings(ids_BF, bags)]
    recorder = Recorder()
    with torch.no_grad(), recorder:
        scorer.mixture.logits(torch.from_numpy(dense_BI), sets)
    return Replay(recorder.products, torch.device("cpu")).run


def plain_run(folder: str, dense_BI: np.ndarray, ids_BF: np.ndarray, bags: Any) -> Callable[[], object]:
    """ONNX Runtime on the whole batch at once, without any check."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(Path(folder, "model.onnx")), options, providers=["CPUExecutionProvider"])
    given = {"dense": dense_BI, "ids": ids_BF}
    for name, bag in bags.items():
        given |= {f"{name}.values": bag.values.astype(np.int64), f"{name}.lengths": bag.lengths}
    given = {one.name: given[one.name] for one in session.get_inputs()}
    return lambda: session.run(["logit"], given)


def raw_rows(log: str) -> list[dict[str, str]]:
    from dmoe.testing.criteo import read_rows

    rows = read_rows(log, 20_000)
    if len(rows) < BATCHES[-1]:
        raise UserError(f"--log {log}: {len(rows)} lines, {BATCHES[-1]} are needed")
    return rows


def cycle(rows: list[dict[str, str]], size: int) -> Iterator[list[dict[str, str]]]:
    low = 0
    while True:
        yield rows[low : low + size]
        low = (low + size) % (len(rows) - size + 1)


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/engines.py", main))
