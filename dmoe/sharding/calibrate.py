"""What was measured of a run beside what its plan predicted: bytes held and sent, times, and the cluster's constants that would fit."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmoe.errors import UserError
from dmoe.model.sizes import human
from dmoe.sharding.cluster import Cluster
from dmoe.sharding.figures import Figures, figures_of
from dmoe.sharding.predict import NUMBER, Prediction, bytes_of, predict, shards_of

FORMAT, VERSION = "dmoe-measured", 1
ROUNDS = 8
KINDS = ("all_to_all", "reduce_scatter", "all_gather", "all_reduce")
SENT_BOUND = 0.02
"""How far bytes sent may be from the prediction: splits of the all-to-alls, and ids that fall unevenly on row shards, are not in it."""


@dataclass(frozen=True)
class RankComparison:
    """One rank. Bytes and milliseconds, [predicted, measured] each.

    Attributes:
        sent: kind of collective -> both; `all_reduce` is of gradients, the dense part's included.
        others: bytes sent for what no plan decides: the objective's moments, figures.
        lookup, exchange: milliseconds of a step in lookups (with the optimiser), and in collectives of that size with nothing else to do.
        memory: predicted of tables and buffers; measured of all that the process took above its start.
    """

    rank: int
    weights: tuple[int, int]
    state: tuple[int, int]
    sent: dict[str, tuple[float, float]]
    others: float
    lookup: tuple[float, float]
    exchange: tuple[float, float]
    memory: tuple[int, int]
    step_ms: float

    @property
    def sent_total(self) -> tuple[float, float]:
        return sum(pair[0] for pair in self.sent.values()), sum(pair[1] for pair in self.sent.values())


@dataclass(frozen=True)
class Calibration:
    """A run beside its plan.

    Attributes:
        misplaced: shards that are not where the plan has them, or of other bytes; in words, empty where all are exact.
        cluster: the plan's, with bandwidths by which the prediction would have been right.
        after: what the plan would then be predicted to take.
    """

    figures: Figures
    device: str
    steps: int
    ranks: tuple[RankComparison, ...]
    misplaced: tuple[str, ...]
    cluster: Cluster
    after: Prediction

    @property
    def worst_sent(self) -> float:
        """The largest relative error of a rank's bytes sent."""
        return max((abs(b / a - 1) for a, b in (rank.sent_total for rank in self.ranks) if a), default=0.0)


def compare(measured: Mapping[str, Any], where: str) -> Calibration:
    """Compares what `dmoe.train.measure` wrote.

    Raises:
        UserError: not such a file.
    """
    if not isinstance(measured, dict) or measured.get("format") != FORMAT or measured.get("version") != VERSION:
        raise UserError(f"{where}: no measurement of this version; make one with tools/plan.py calibrate or dmoe.train.measure")
    plan, told = measured["plan"], measured["ranks"]
    figures = figures_of(plan, where)
    prediction, cluster = figures.prediction, figures.cluster
    kinds = sent_by_kind(plan["tables"], prediction, cluster)
    kinds["all_reduce"] += 2 * (cluster.ranks - 1) / cluster.ranks * plan["model"]["dense_bytes"]
    ranks = tuple(_rank(rank, told[rank.rank], kinds, prediction) for rank in figures.ranks)
    corrected, after = _corrected(plan, cluster, ranks)
    return Calibration(figures, measured["device"], measured["steps"], ranks, tuple(_misplaced(plan, told)), corrected, after)


def sent_by_kind(tables: Mapping[str, Any], prediction: Prediction, cluster: Cluster) -> dict[str, Any]:
    """The prediction's bytes sent, [ranks] for each kind of collective.

    Row shards on every rank reduce-scatter forwards and all-gather backwards over all ranks; those of a host do so within it, for the
    batches of every host. All else that is sharded goes by all-to-all.
    """
    kinds = {kind: np.zeros(cluster.ranks) for kind in KINDS}
    for index, name in enumerate(prediction.tables):
        row = tables[name]
        sent = prediction.sent[index]
        if row["sharding_type"] == "data_parallel":
            kinds["all_reduce"] += sent
            continue
        reduced = np.zeros(cluster.ranks)
        hosts = {"row_wise": cluster.ranks - 1}.get(row["sharding_type"], (cluster.ranks_a_node - 1) * cluster.nodes)
        if row["sharding_type"] in ("row_wise", "table_row_wise", "grid_shard"):
            for shard in shards_of(row, cluster.ranks):
                reduced[shard["rank"]] += hosts * row["batch_size"] * shard["columns"] * NUMBER
        kinds["reduce_scatter"] += reduced
        kinds["all_gather"] += reduced
        kinds["all_to_all"] += sent - 2 * reduced
    return kinds


def _rank(told: Any, mine: Mapping[str, Any], kinds: Mapping[str, Any], prediction: Prediction) -> RankComparison:
    rank, parts = told.rank, prediction.parts
    weights, state = (sum(shard[what] for shard in mine["shards"]) for what in ("weights", "state"))
    return RankComparison(
        rank,
        (told.weights, weights),
        (told.state, state),
        {kind: (float(kinds[kind][rank]), float(mine["sent"].get(kind, 0.0))) for kind in KINDS},
        float(sum(count for kind, count in mine["sent"].items() if kind not in KINDS)),
        (float(parts["forward lookup"][rank] + parts["backward lookup"][rank]), mine["forward_lookup_ms"] + mine["backward_lookup_ms"]),
        (float(parts["forward exchange"][rank] + parts["backward exchange"][rank]), mine["exchange_ms"]),
        (told.memory, mine["peak_bytes"]),
        mine["step_ms"],
    )


def _misplaced(plan: Mapping[str, Any], told: list[dict[str, Any]]) -> Iterator[str]:
    """Every rectangle of the plan against those that lie in the ranks' memory, bytes included."""
    planned = set()
    for name, row in plan["tables"].items():
        for shard in shards_of(row, plan["world_size"]):
            if shard["rows"] and shard["columns"]:
                weights, state = bytes_of(np.array([[shard["rows"], shard["columns"]]], np.float64), plan["optimizer"])
                place = (name, shard["row"], shard["column"], shard["rows"], shard["columns"], shard["rank"])
                planned.add((*place, int(weights[0]), int(state[0])))
    keys = ("table", "row", "column", "rows", "columns")
    held = {
        (*(shard[key] for key in keys), rank["rank"], shard["weights"], shard["state"])
        for rank in told
        for shard in rank["shards"]
        if shard["rows"] and shard["columns"]
    }
    for which, some in (("planned, not held", planned - held), ("held, not planned", held - planned)):
        for name, row_, column, rows, columns, rank, weights_, state_ in sorted(some):
            yield f"{which}: {name} [{row_}+{rows}, {column}+{columns}] on rank {rank}, {weights_:,} + {state_:,} bytes"


def _corrected(plan: Mapping[str, Any], cluster: Cluster, ranks: tuple[RankComparison, ...]) -> tuple[Cluster, Prediction]:
    """Bandwidths by which lookups and exchange take on the slowest ranks what they took, and what they then predict.

    In rounds, since a prediction's parts do not depend on one bandwidth alone. What took no time leaves its bandwidths as they are.
    """
    measured = [max(getattr(rank, what)[1] for rank in ranks) for what in ("lookup", "exchange")]
    device, memory = cluster.device, "hbm_bandwidth" if cluster.device.kind == "cuda" else "ddr_bandwidth"
    for _ in range(ROUNDS):
        predicted = predict(plan["tables"], plan["optimizer"], dataclasses.replace(cluster, device=device))
        lookup, exchange = (said / seen if said > 0 and seen > 0 else 1.0 for said, seen in zip(slowest(predicted), measured, strict=True))
        changed = {memory: getattr(device, memory) * lookup, "node_link": device.node_link * exchange}
        if cluster.nodes > 1:
            changed["network"] = device.network * exchange
        if cluster.device.kind == "cuda":
            changed["host_link"] = device.host_link * lookup
        device = dataclasses.replace(device, **changed)
    corrected = dataclasses.replace(cluster, device=dataclasses.replace(device, name=f"{cluster.device.name}-measured"))
    return corrected, predict(plan["tables"], plan["optimizer"], corrected)


def slowest(prediction: Prediction) -> tuple[float, float]:
    """Milliseconds of lookups and of exchange on the ranks where each takes longest."""
    parts = prediction.parts
    lookup, exchange = (parts[f"forward {what}"] + parts[f"backward {what}"] for what in ("lookup", "exchange"))
    return float(lookup.max()), float(exchange.max())


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
