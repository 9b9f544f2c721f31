"""Output of a calibration: a page, plain data, and a cluster file with the corrected bandwidths."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from dmoe.model.budget.sizes import human
from dmoe.report.document import Bullets, Document, Heading, Note, Table
from dmoe.sharding.planner.cost.calibrate import SENT_BOUND, Calibration, RankComparison, slowest


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
    """The calibration as plain data, for `--json`."""
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


def calibration_document(calibration: Calibration) -> Document:
    """The calibration as a document."""
    figures, ranks, misplaced = calibration.figures, calibration.ranks, calibration.misplaced
    head = f"{figures.cluster.name}: {calibration.steps} steps of {figures.batch_size:,} rows on {calibration.device}, predicted | measured"
    shards = sum(len(table.ranks) if table.sharding == "data_parallel" else table.shards for table in figures.tables)
    exact = f"all {shards} shards lie where the plan has them, weights and optimizer state equal to the byte"
    sent = f"bytes sent: {calibration.worst_sent:.2%} off on the worst rank (bound {SENT_BOUND:.0%}), by kind on rank 0"
    kinds = [[kind, human(said), human(seen), KINDS.get(kind, "")] for kind, (said, seen) in ranks[0].sent.items() if said or seen]
    kinds.append(["no plan decides", "", human(ranks[0].others), "the objective's moments, figures"])
    return Document(
        head,
        [
            Note(head, only="text"),
            Heading("Ranks"),
            Table(RANK, [_rank(rank) for rank in ranks[:MOST]], words=(), rule=False),
            Note(f"and {len(ranks) - MOST:,} more, in --json" if len(ranks) > MOST else ""),
            Heading("Where the shards lie"),
            Note(f"{len(misplaced)} of {shards} shards DIFFER from the plan:" if misplaced else exact, "bad" if misplaced else "good"),
            Bullets(misplaced[:8]),
            Heading("Bytes sent"),
            Table(["kind", "predicted", "measured", "with"], kinds, sent, words=(0, 3), rule=False),
            Heading("Times"),
            _times(calibration),
            Note("\n".join(_corrected(calibration)), "code"),
        ],
    )


RANK = ["rank", "weights", "state", "sent a step", "error", "step"]
MOST = 32
"""Maximum number of ranks in the list."""
KINDS = {"all_reduce": "gradients, the dense part's included"}


def _rank(rank: RankComparison) -> list[str]:
    said, seen = rank.sent_total
    pairs = [" | ".join(f"{human(value):>8}" for value in pair) for pair in (rank.weights, rank.state, (said, seen))]
    return [str(rank.rank), *pairs, f"{seen / said - 1:+.2%}" if said else "", f"{rank.step_ms:.2f} ms"]


def _times(calibration: Calibration) -> Table:
    rows = []
    after = slowest(calibration.after)
    for (title, what), then in zip((("lookups and optimizer", "lookup"), ("exchange, by itself", "exchange")), after, strict=True):
        said, seen = (max(getattr(rank, what)[number] for rank in calibration.ranks) for number in (0, 1))
        rows.append([title, *(f"{value:.3f} ms" for value in (said, seen, then))])
    return Table(["slowest rank, a step", "predicted", "measured", "corrected"], rows, rule=False)


def _corrected(calibration: Calibration) -> Iterator[str]:
    before, after = calibration.figures.cluster.device, calibration.cluster.device
    peak = [max(rank.memory[number] for rank in calibration.ranks) for number in (0, 1)]
    whole = "the device's peak" if calibration.device == "cuda" else "all that the process grew by"
    yield f"memory: {human(peak[0])} predicted for tables and buffers; {human(peak[1])} measured: {whole}"
    for key in ("hbm_bandwidth", "ddr_bandwidth", "host_link", "node_link", "network"):
        if getattr(before, key) != getattr(after, key):
            yield f"corrected {key}: {getattr(before, key) / 1e9:.3g} -> {getattr(after, key) / 1e9:.3g} GB/s"
    if calibration.device != "cuda":
        yield "times of gloo on CPUs do not transfer to GPUs, nor to another machine; the bytes do"
