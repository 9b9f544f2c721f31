"""The engines of a scorer side by side, its products' floor, ONNX Runtime alone, and raw rows: what docs/serve.md tells of speed.

    tools/bench/engines.py scorers/dmoe --int8 scorers/dmoe_int8 --log day_0.tsv

All take turns call by call, on one thread. Of each: the medians of elapsed and of CPU time, which other processes disturb less, and the
medians of how many times as fast it was as the floor and as ONNX Runtime alone, by CPU time of the same turn. The floor is the matrix
products of the torch engine alone, on operands that are there already. Rows of the log are other ones in each turn. They are parsed from
JSON just before the clock starts, or made a table, or encoded to the ids that raw rows are compared with (`of ids in`).
`--processes 1 2` tells rows/s over cores instead.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dmoe.errors import UserError, run_command

BATCHES = (1, 100, 256, 4096)
FLOOR, ALONE, IDS, OF_LOG = "products alone (floor)", "ONNX Runtime alone", "onnx", "onnx, ids of the log"
Call = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Makes what a call is given, outside the clock; and the call."""


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
    table = [["rows", "", "p50 ms", "CPU ms", "rows/s of CPU time", "of the floor", "of ONNX Runtime", "of ids in", "off by"]]
    for size in BATCHES:
        given = draw(scorer, size, np.random.default_rng(size))
        calls: dict[str, Call] = {
            FLOOR: plain(products_of(reference, *given)),
            "torch": plain(partial(reference.logits, *given)),
            ALONE: plain(plain_run(arguments.scorer, *given)),
            IDS: plain(partial(scorer.logits, *given)),
        }
        for name, one in others.items():
            calls[name] = plain(partial(one.logits, *given))
        if logs:
            some = cycle(logs, size)
            calls[OF_LOG] = fresh(some, lambda rows: scorer.encoder.encode(rows), lambda x: scorer.logits(x.dense_BI, x.ids_BF))
            calls["onnx, rows of JSON"] = fresh(some, lambda rows: rows, scorer.predict)
            calls["onnx, Arrow table"] = fresh(some, typed, scorer.predict)
        exact = reference.logits(*given)
        off = {name: float(np.abs(calls[name][1](None) - exact).max()) for name in (IDS, *others)}
        elapsed, busy = measure(calls, max(arguments.rounds // (4 if size > 1000 else 1), 3))
        for name in calls:
            mine = float(np.median(busy[name]))
            shares = [f"{np.median(busy[other] / busy[name]):.2f}" for other in (FLOOR, ALONE)]
            shares.append(f"{np.median(busy[OF_LOG] / busy[name]):.2f}" if name.endswith(("JSON", "table")) else "")
            cells = [f"{1e3 * np.median(elapsed[name]):.3f}", f"{1e3 * mine:.3f}", f"{size / mine:,.0f}", *shares]
            table.append([f"{size:,}", name, *cells, f"{off[name]:.1g}" if name in off else ""])
    print(*in_columns(table[0], table[1:], rule=True, width=10_000), sep="\n")


def plain(call: Callable[[], Any]) -> Call:
    return lambda: None, lambda _: call()


def fresh(some: Iterator[Sequence[str]], make: Callable[[Any], Any], call: Callable[[Any], Any]) -> Call:
    return lambda: make([json.loads(text) for text in next(some)]), call


def measure(calls: dict[str, Call], rounds: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Seconds of each in each turn: that passed, and of CPU time."""
    elapsed: dict[str, list[float]] = {name: [] for name in calls}
    busy: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 3):
        for name, (make, call) in calls.items():
            given = make()
            began, worked = time.perf_counter(), time.thread_time()
            call(given)
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


def raw_rows(log: str) -> list[str]:
    """Rows in JSON as a program sends them: numbers as numbers, and null for a missing value."""
    from dmoe.testing.criteo import read_rows

    rows = []
    for row in read_rows(log, 40_000):
        rows.append(json.dumps({name: (int(text) if name[0] == "I" else text) if text else None for name, text in row.items()}))
    if len(rows) < BATCHES[-1]:
        raise UserError(f"--log {log}: {len(rows)} lines, {BATCHES[-1]} are needed")
    return rows


def typed(rows: Sequence[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.table({name: pa.array([row[name] for row in rows], pa.int64() if name[0] == "I" else pa.string()) for name in rows[0]})


def cycle(rows: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    low = 0
    while True:
        yield rows[low : low + size]
        low = (low + size) % (len(rows) - size + 1)


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/engines.py", main))
