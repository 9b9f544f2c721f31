"""Levers: changes that may make a model fit a cluster. Each has amounts, the smallest first, and the option to type for each amount."""

import dataclasses
import itertools
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from dmoe.config.config import Config, override_key
from dmoe.config.yaml_files import flow_yaml
from dmoe.sharding.plan.sharders import ALL_TYPES, CUT_ROWS
from dmoe.sharding.planner.advice.sweep import with_experts
from dmoe.sharding.planner.cluster import MAX_RANKS, PRESETS, Cluster
from dmoe.sharding.planner.cost.step_time import table_bytes
from dmoe.sharding.planner.planning_model import Described

EFFECTS = ("the same model", "the same model, trained otherwise", "another model")
MOST_NODES = 64
MOST_CONSTRAINTS = 8
NODES, OPTIMIZER = "more nodes", "another optimizer of the tables"
IN_HOST = "tables in the host's memory"
HOST_KERNELS = "[fused_uvm_caching,fused_uvm]"


@dataclass(frozen=True)
class Attempt:
    """One amount of a lever.

    Attributes:
        what: description.
        overrides: values for `--set`.
        cluster: the cluster to use instead; None if unchanged.
        cap: maximum number of ids of a feature; None if unchanged.
    """

    what: str
    overrides: tuple[str, ...] = ()
    cluster: Cluster | None = None
    cap: int | None = None

    @property
    def how(self) -> str:
        """The options to type, or the action to take."""
        told = []
        if (one := self.cluster) is not None:
            told.append(f"--cluster {one.nodes}x{one.ranks_a_node}:{one.device.name if one.device.name in PRESETS else 'YOUR_FILE'}")
        told += [f"--set {' '.join(map(shlex.quote, self.overrides))}"] if self.overrides else []
        told += [f"preprocess with a larger --min-count, until no feature has more than {self.cap:,} ids"] if self.cap else []
        return "; ".join(told)


@dataclass(frozen=True)
class Lever:
    """A kind of change. `effect` is an index into EFFECTS; `caveat` describes its effect on model quality or on the launch."""

    kind: str
    effect: int
    caveat: str
    attempts: tuple[Attempt, ...] = field(repr=False)


NO_EFFECT = "none: a plan never changes the mathematics"
CAVEATS = {
    NODES: "none; each rank has fewer rows",
    "devices with more memory": "none",
    "sharding types": NO_EFFECT,
    IN_HOST: "none; their lookups are slower",
    "smaller batch": "learning rates and the schedule belong to a batch size: tune them again",
    OPTIMIZER: "tune its learning rate anew and compare: dmoe report",
    "one table set for all experts": "experts that share embeddings are alike: higher CEC, lower AUC",
    "smaller dim": "less room for what tells ids apart",
    "fewer experts": "less diversity; compare with dmoe report before you believe that it is free",
    "fewer ids a feature": "the rarest ids share one embedding",
}


def levers_for(model: Described, cluster: Cluster, on_device: bool) -> list[Lever]:
    """All levers that the config allows and that have at least one amount.

    Args:
        on_device: tables must not be in host memory by default; moving some there is then a lever.
    """
    config = model.config
    kinds: dict[str, tuple[int, Iterator[Attempt]]] = {
        NODES: (0, _nodes(cluster)),
        "devices with more memory": (0, _devices(cluster)),
        "sharding types": (0, _types(config)),
        IN_HOST: (0, _in_host(model, cluster, on_device)),
        "smaller batch": (1, _batches(config, cluster)),
        OPTIMIZER: (1, _optimizers(config)),
        "one table set for all experts": (2, _shared(config)),
        "smaller dim": (2, _dims(config)),
        "fewer experts": (2, _experts(config)),
        "fewer ids a feature": (2, _caps(model)),
    }
    found = [Lever(kind, effect, CAVEATS[kind], tuple(attempts)) for kind, (effect, attempts) in kinds.items()]
    named = list(config.sharding.tables)[:MOST_CONSTRAINTS]
    found[3:3] = [Lever(f"constraint on {name}", 0, NO_EFFECT, (_without(config, name),)) for name in named]
    return [lever for lever in found if lever.attempts]


def paired(levers: list[Lever], helped: dict[str, str]) -> list[Lever]:
    """A lever that combines another optimizer with more nodes, if neither the optimizer nor one more node is sufficient.

    Args:
        helped: kind -> amount (`Attempt.what`) of the levers that are sufficient alone.
    """
    by_kind = {lever.kind: lever for lever in levers}
    optimizers, nodes = by_kind.get(OPTIMIZER), by_kind.get(NODES)
    if optimizers is None or nodes is None or OPTIMIZER in helped:
        return []
    with_it = optimizers.attempts[0]
    fewer = itertools.takewhile(lambda one: one.what != helped.get(NODES), nodes.attempts)
    both = [Attempt(f"{with_it.what}, {one.what}", with_it.overrides, one.cluster) for one in fewer]
    return [Lever(f"{OPTIMIZER}, and {NODES}", optimizers.effect, optimizers.caveat, tuple(both))] if both else []


def _nodes(cluster: Cluster) -> Iterator[Attempt]:
    most = min(MOST_NODES * cluster.nodes, MAX_RANKS // cluster.ranks_a_node)
    for nodes in range(cluster.nodes + 1, most + 1):
        yield Attempt(f"{nodes} nodes instead of {cluster.nodes}", cluster=dataclasses.replace(cluster, nodes=nodes))


def _devices(cluster: Cluster) -> Iterator[Attempt]:
    larger = [one for one in PRESETS.values() if one.kind == cluster.device.kind == "cuda" and one.hbm > cluster.device.hbm]
    for device in sorted(larger, key=lambda one: (one.hbm, one.usd_an_hour)):
        yield Attempt(
            f"{device.name} instead of {cluster.device.name}",
            cluster=dataclasses.replace(cluster.equal(), device=device, without=cluster.without),
        )


def _types(config: Config) -> Iterator[Attempt]:
    if config.sharding.types:
        closed = [kind for kind in ALL_TYPES if kind not in config.sharding.types]
        yield Attempt(f"also {', '.join(closed)}" if closed else "host memory too", ("sharding.types=null",))


def _without(config: Config, name: str) -> Attempt:
    rest = {key: value.model_dump(exclude_none=True) for key, value in config.sharding.tables.items() if key != name}
    return Attempt(f"no constraint on {name}", (f"sharding.tables={flow_yaml(rest)}",))


def _in_host(model: Described, cluster: Cluster, on_device: bool) -> Iterator[Attempt]:
    # If the config names no sharding types, the planner tries host memory by itself.
    if cluster.device.kind != "cuda" or not (on_device or model.config.sharding.types):
        return
    sizes, features = table_bytes(model), {table.feature for table in model.tables}
    # A constraint on the name of a feature applies to all its tables.
    named = [one.name for one in model.tables if one.name == one.feature or one.name not in features]
    largest = sorted(named, key=lambda name: -sizes[name])
    for count in range(1, len(largest) + 1):
        what = ", ".join(largest[:count]) if count <= 6 else f"{', '.join(largest[:5])} and {count - 5} more"
        keys = [override_key("sharding", "tables", name, "kernels") for name in largest[:count]]
        yield Attempt(what, tuple(f"{key}={HOST_KERNELS}" for key in keys))


def _batches(config: Config, cluster: Cluster) -> Iterator[Attempt]:
    now = config.train.batch_size
    amounts = [now * share // 16 for share in range(15, 0, -1)] + [now >> power for power in range(5, 12)]
    for amount in dict.fromkeys(amount // cluster.ranks * cluster.ranks for amount in amounts):
        if amount:
            yield Attempt(f"{amount:,} rows instead of {now:,}", (f"train.batch_size={amount}",))


def _optimizers(config: Config) -> Iterator[Attempt]:
    now = config.optimizer.tables.kind
    order = ("adam", "adagrad", "rowwise_adagrad", "sgd")
    for kind in order[order.index(now) + 1 :]:
        overrides = [f"optimizer.tables.kind={kind}"]
        what = f"{kind} instead of {now}"
        if kind == "rowwise_adagrad":
            what += ": one state a row"
            if config.model.embedding.layout == "wide":
                overrides.append("model.embedding.layout=separate")
            if config.sharding.types and (kept := [one for one in config.sharding.types if one not in CUT_ROWS]):
                overrides.append(f"sharding.types=[{','.join(kept)}]")
        elif kind == "sgd":
            what += ": no state; rare ids learn slowly"
        yield Attempt(what, tuple(overrides))


def _shared(config: Config) -> Iterator[Attempt]:
    if config.model.embedding.sets == "per_expert" and len(config.model.experts) > 1:
        yield Attempt("Multi-Embedding off (SE)", ("model.embedding.sets=shared",))


def _dims(config: Config) -> Iterator[Attempt]:
    own = [one["dim"] for one in config.model.experts if isinstance(one, dict) and isinstance(one.get("dim"), int)]
    now = max([config.model.embedding.dim, *own])
    for dim in [*range((now - 1) // 8 * 8, 7, -8), 4]:
        overrides = [f"model.embedding.dim={min(dim, config.model.embedding.dim)}"]
        if own:
            capped = [
                one | {"dim": min(dim, one["dim"])} if isinstance(one, dict) and "dim" in one else one for one in config.model.experts
            ]
            overrides.append(f"model.experts={flow_yaml(capped)}")
        if dim < now:
            yield Attempt(f"dim {dim} instead of {now}", tuple(overrides))


def _experts(config: Config) -> Iterator[Attempt]:
    now = len(config.model.experts)
    for count in range(now - 1, 0, -1):
        names = [one if isinstance(one, str) else str(one.get("kind")) for one in config.model.experts[:count]]
        yield Attempt(f"{count} instead of {now} ({', '.join(names)})", (with_experts(config, count),))


def _caps(model: Described) -> Iterator[Attempt]:
    largest = max(feature.cardinality for feature in model.blueprint.features)
    cap = float(largest)
    while (cap := cap * 0.9) >= 1000:
        # Two digits are precise enough for a recommendation.
        rounded = int(float(f"{cap:.2g}"))
        touched = sum(feature.cardinality > rounded for feature in model.blueprint.features)
        yield Attempt(f"{rounded:,} ids at most ({touched} features have more)", cap=rounded)
