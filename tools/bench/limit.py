"""The floor that this machine sets a training step, measured, how much of it dmoe reaches, and where the rest goes.

    python -m tools.bench.limit --batch 4096 --output /tmp/bench/limit
    python -m tools.bench.limit --device cuda        (by device events; written for a GPU, never run on one)

The floor adds what cannot be left out: the step's own matrix products (recorded from it, forward and both of backward, replayed alone),
the bytes of the looked-up rows and of their optimizer's state at the measured rate of random rows, the dense optimizer's bytes at the
rate of a copy. All else that a step does, elementwise functions, norms, sums, copies, the pipeline, counts as loss, though PyTorch's
products on a CPU leave no way to fold an activation, a cross or its derivative into them: so a second floor gives every product's result
one elementwise pass, at once, while it is in the cache. With one thread times are the process's CPU seconds, which the neighbours' load
hardly moves; else wall-clock. A better formula lowers the floor itself: it is the floor of the model as it is written.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.bench.case import EXPERT_DIM, Case, add_arguments, case_of, opened
from tools.bench.results import announce, figure, loads, save

REACHED, CORRELATION, READER = 0.9, 0.02, 0.01
"""Targets (issue 9): the share of the floor that is reached, and those of a step that the correlation loss and the reader take."""
FLOOR = ("products", "rows", "dense optimizer")
LOOSE = ("products with a pass", "rows", "dense optimizer")


@dataclass(frozen=True)
class Line:
    """A figure of the CSV."""

    part: str
    name: str
    value: float
    unit: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--operations", action="store_true", help="each operator by its shapes too, as seen from the CPU")
    parser.add_argument("--shapes", type=int, default=8, help="products to list")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="lays values over the config")
    parser.add_argument("--output", default="", help="writes OUTPUT.csv and OUTPUT.png")
    arguments = parser.parse_args()
    case = case_of(arguments)
    announce()
    clock = "device events" if arguments.device == "cuda" else "CPU seconds" if case.threads == 1 else "wall-clock"
    print(f"{case.label} {' '.join(arguments.set)}; {clock}", flush=True)
    lines = measure(case, arguments)
    if arguments.output:
        save(lines, f"{arguments.output}.csv")
        draw(lines, f"{arguments.output}.png", case.label)


def measure(case: Case, arguments: argparse.Namespace) -> list[Line]:
    """All that there is to measure, printed as it comes."""
    import torch

    from dmoe import distributed
    from dmoe.accept.stages.products import Recorder, Replay
    from tools.bench import collectives
    from tools.bench.floor import Memory, correlation, reader_seconds, seconds

    session, batches = opened(case, *arguments.set)
    device = session.device
    if device.type != arguments.device:
        raise SystemExit(f"--device {arguments.device}: what there is here is {device.type}")

    def step() -> None:
        session.pipeline.progress(batches)

    step()
    # A compiler's products are the same, but in its own kernels.
    with torch.compiler.set_stance("force_eager"), Recorder() as recorder:
        step()
    replay = Replay(recorder.products, device)
    dense = sum(parameter.numel() for parameter in session.dense.parameters())
    memory = Memory(case, dense, device)
    parts: dict[str, Callable[[], None]] = {
        "step": step,
        "products": replay.run,
        "rows": memory.rows,
        "dense optimizer": memory.optimizer,
        "products with a pass": replay.with_passes,
        "correlation loss": correlation(case, device),
    }
    rounds: dict[str, list[float]] = {name: [] for name in parts}
    for call in parts.values():
        call()
    for _ in range(arguments.rounds):
        for name, call in parts.items():
            rounds[name].append(seconds(call, case.threads, device) * 1e3)
    lines = floor_lines(rounds, {"rows": memory.row_bytes, "dense optimizer": memory.optimizer_bytes}, replay.flops)
    print("slowest products, ms a step: rate")
    for product, count, each in replay.slowest(lambda call: seconds(call, case.threads, device))[: arguments.shapes]:
        print(f"  {each * count * 1e3:8.1f}  {count} x {product}  {product.flops / each / 1e9:6.1f} GFLOP/s")
    lines += profile_lines(session, step, device, arguments.operations)
    distributed.stop()
    few, many = case.batch, 4 * case.batch
    exchange = collectives.measured((8, 65_536, 4 << 20, dense * 4), (few, many), len(case.expert_specs()), EXPERT_DIM)
    print(f"collectives of 2 processes (gloo, wall-clock), which multiply {exchange.together:.2f} times as fast as one")
    for one in exchange.collectives:
        print(f"  {one}")
        lines.append(Line(f"collectives: {one.name}", f"{one.bytes} B", one.median_us, "us"))
    print(f"verdicts (load {loads()})")
    step_ms, reached, loss = statistics.median(rounds["step"]), share(rounds, FLOOR), share(rounds, ["correlation loss"])
    reader = reader_seconds(case, session.config.data.shuffle) * 1e3
    sent = exchange.correlation_bytes
    verdict(reached >= REACHED, f"a step reaches {reached:.1%} of the floor, target {REACHED:.0%}")
    verdict(loss <= CORRELATION, f"the correlation loss takes {loss:.2%} of a step, target {CORRELATION:.0%}")
    verdict(
        sent[many] <= sent[few], f"it sends {sent[few]:,} bytes a rank of 2 at batch {few:,}, {sent[many]:,} at {many:,}, target no more"
    )
    verdict(
        reader <= READER * step_ms, f"the reader takes {reader:.2f} CPU ms a batch, {reader / step_ms:.2%} of a step, target {READER:.0%}"
    )
    lines += [Line("share of a step", "correlation loss", loss, "share"), Line("share of a step", "reader", reader / step_ms, "share")]
    return lines + [Line("sent by the correlation loss", f"batch {batch}", count, "bytes") for batch, count in sent.items()]


def floor_lines(rounds: dict[str, list[float]], moved: dict[str, int], flops: int) -> list[Line]:
    ms = {name: statistics.median(values) for name, values in rounds.items()}
    for name, value in ms.items():
        rate = f"{flops / 1e9:8.1f} GFLOP at {flops / value / 1e6:6.1f} GFLOP/s" if name.startswith("products") else ""
        rate = f"{moved[name] / 1e6:8.1f} MB at {moved[name] / value / 1e6:6.2f} GB/s" if name in moved else rate
        print(f"{name:21} {value:8.1f} ms  {rate}".rstrip())
    lines = [Line("floor", name, value, "ms") for name, value in ms.items()]
    for title, names in (("floor", FLOOR), ("floor with a pass", LOOSE)):
        reached = share(rounds, names)
        lines += [Line("floor", title, sum(ms[name] for name in names), "ms"), Line("reached", title, reached, "share")]
        print(f"{title:21} {sum(ms[name] for name in names):8.1f} ms; of it a step reaches {reached:.1%} (load {loads()})", flush=True)
    return lines


def share(rounds: dict[str, list[float]], names: Sequence[str]) -> float:
    """Of a step's time, what the parts take together: the median over rounds."""
    taken = zip(rounds["step"], *(rounds[name] for name in names), strict=True)
    return statistics.median(sum(parts) / step for step, *parts in taken)


def profile_lines(session: Any, step: Callable[[], None], device: Any, operations: bool) -> list[Line]:
    from tools.bench import phases

    lines = []
    phases.mark_loss(session)
    for title, figures in zip(("by phase", "by kind of operation"), phases.measure(step, 12, device.type == "cuda"), strict=True):
        whole = sum(figures.values())
        print(f"{title} ({whole:.1f} ms a step, load {loads()})")
        for name, value in sorted(figures.items(), key=lambda item: -item[1]):
            print(f"  {name:32} {value:8.2f} ms {value / whole:6.1%}")
            lines.append(Line(title, name, value, "ms"))
    if operations:
        print(phases.per_operation(step, 3))
    return lines


def verdict(good: bool, words: str) -> None:
    print(f"  {'reached' if good else 'NOT REACHED':12} {words}", flush=True)


def draw(lines: Sequence[Line], path: str, title: str) -> None:
    """The step beside its floors, and its time by phase and by kind of operation."""
    values = {(line.part, line.name): line.value for line in lines}
    with figure(path, 1, 3) as axes:
        for x, names in enumerate((FLOOR, LOOSE, ("step",))):
            below = 0.0
            for name in names:
                color = f"C{(*FLOOR, LOOSE[0], 'step').index(name)}"
                axes[0][0].bar(x, values["floor", name], bottom=below, color=color, label=name if x == 0 or name not in FLOOR else None)
                below += values["floor", name]
        axes[0][0].set_xticks(range(3), ["floor", "with a pass", "step"])
        axes[0][0].set_ylabel("ms")
        axes[0][0].set_title(title, fontsize=6)
        axes[0][0].legend(fontsize=6)
        for axis, part in zip(axes[0][1:], ("by phase", "by kind of operation"), strict=True):
            shown = sorted((value, name) for (of, name), value in values.items() if of == part)
            axis.barh([name for _, name in shown], [value for value, _ in shown])
            axis.tick_params(labelsize=6)
            axis.set_xlabel(f"ms a step, {part}")


if __name__ == "__main__":
    main()
