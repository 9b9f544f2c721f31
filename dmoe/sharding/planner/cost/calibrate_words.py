"""A calibration as text of at most 100 columns, as plain data, and as a cluster file with the bandwidths that it found."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from dmoe.model.sizes import human
from dmoe.sharding.planner.cost.calibrate import SENT_BOUND, Calibration, slowest


def cluster_text(calibration: Calibration) -> str:
    """The corrected device as a file for `--cluster NODESxRANKS:FILE`."""
    device = calibration.cluster.device
    base = calibration.figures.cluster.device.name
    head = f"# Bandwidths corrected by {calibration.steps} measured steps of {calibration.figures.cluster.name}, in bytes a second.\n"
    if calibration.device != "cuda":
        head += "# Measured on CPUs by gloo: they say nothing about GPUs or about another machine.\n"
    fields = {key: value if isinstance(value, str) else float(f"{value:.6g}") for key, value in dataclasses.asdict(device).items()}
    preset = base.split("*")[0].split("-measured")[0]
    return head + f"base: {preset}\n" + "".join(f"{key}: {value}\n" for key, value in fields.items())


def as_data(calibration: Calibration) -> dict[str, Any]:
    """Plain data for `--json`."""
    lookup, exchange = slowest(calibration.after)
    return {
        "cluster": calibration.figures.cluster.name,
        "device": calibration.device,
        "steps": calibration.steps,
        "exact": not calibration.misplaced,
        "misplaced": list(calibration.misplaced),
        "worst_sent_error": calibration.worst_sent,
        "ranks": [dataclasses.asdict(rank) for rank in calibration.ranks],
        "corrected": dataclasses.asdict(calibration.cluster.device),
        "after": {"lookup_ms": lookup, "exchange_ms": exchange},
    }


def as_lines(calibration: Calibration) -> Iterator[str]:
    """At most 100 columns wide."""
    figures, ranks = calibration.figures, calibration.ranks
    yield f"{figures.cluster.name}: {calibration.steps} steps of {figures.batch_size:,} rows on {calibration.device}, predicted | measured"
    yield ""
    yield f"{'rank':>5}  {'weights':>19}  {'state':>19}  {'sent a step':>19}  {'error':>7}  {'step':>11}"
    for rank in ranks[:32]:
        (said, seen), error = rank.sent_total, ""
        if said:
            error = f"{seen / said - 1:+.2%}"
        pairs = [" | ".join(f"{human(value):>8}" for value in pair) for pair in (rank.weights, rank.state, (said, seen))]
        yield f"{rank.rank:>5}  {'  '.join(pairs)}  {error:>7}  {rank.step_ms:>8.2f} ms"
    if len(ranks) > 32:
        yield f"  and {len(ranks) - 32:,} more, in --json"
    yield ""
    shards = sum(len(table.ranks) if table.sharding == "data_parallel" else table.shards for table in figures.tables)
    if calibration.misplaced:
        yield f"{len(calibration.misplaced)} of {shards} shards DIFFER from the plan:"
        yield from (f"  {line}"[:100] for line in calibration.misplaced[:8])
    else:
        yield f"all {shards} shards lie where the plan has them, weights and optimiser state equal to the byte"
    yield f"bytes sent: {calibration.worst_sent:.2%} off on the worst rank (bound {SENT_BOUND:.0%}), by kind on rank 0:"
    for kind, (said, seen) in ranks[0].sent.items():
        if said or seen:
            what = " (gradients, the dense part's included)" if kind == "all_reduce" else ""
            yield f"  {kind:<15} {human(said):>8} | {human(seen):>8}{what}"
    yield f"  {'no plan decides':<15} {'':>8} | {human(ranks[0].others):>8} (the objective's moments, figures)"
    yield ""
    yield from _times(calibration)


def _times(calibration: Calibration) -> Iterator[str]:
    before, after = calibration.figures.cluster.device, calibration.cluster.device
    yield f"{'slowest rank, a step':<22} {'predicted':>12} {'measured':>12} {'corrected':>12}"
    for (title, what), then in zip(
        (("lookups and optimiser", "lookup"), ("exchange, by itself", "exchange")), slowest(calibration.after), strict=True
    ):
        said, seen = (max(getattr(rank, what)[number] for rank in calibration.ranks) for number in (0, 1))
        yield f"{title:<22} {said:>9.3f} ms {seen:>9.3f} ms {then:>9.3f} ms"
    peak = [max(rank.memory[number] for rank in calibration.ranks) for number in (0, 1)]
    whole = "the device's peak" if calibration.device == "cuda" else "all that the process grew by"
    yield f"memory: {human(peak[0])} predicted for tables and buffers; {human(peak[1])} measured: {whole}"
    for key in ("hbm_bandwidth", "ddr_bandwidth", "host_link", "node_link", "network"):
        if getattr(before, key) != getattr(after, key):
            yield f"corrected {key}: {getattr(before, key) / 1e9:.3g} -> {getattr(after, key) / 1e9:.3g} GB/s"
    if calibration.device != "cuda":
        yield "times of gloo on CPUs do not transfer to GPUs, nor to another machine; the bytes do"
