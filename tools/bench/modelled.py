"""The planner's cost model with this machine's speeds, fitted to one measured step, and what it says of others."""

from dataclasses import dataclass, replace

from dmoe.sharding.planner.cluster import PRESETS, Cluster, Device
from dmoe.sharding.planner.cost.step_time import step_of
from dmoe.sharding.planner.planning_model import describe
from dmoe.sharding.planner.room import DoesNotFit
from tools.bench.case import Case, config_of, manifest_of, opened

ROUNDS = 8
RANKS_A_NODE = 8


@dataclass(frozen=True)
class Model:
    """`dmoe.sharding.planner.cost.step_time` with one device's constants."""

    device: Device

    def ms(self, case: Case) -> tuple[float, float]:
        """Milliseconds a step of tables and of the dense part, by the plan that the planner makes; ranks beyond 8 are nodes of 8.

        Raises:
            DoesNotFit: the tables, in the memory of so many ranks.
        """
        nodes, ranks = divmod(case.ranks, RANKS_A_NODE) if case.ranks > RANKS_A_NODE else (1, case.ranks)
        cluster = Cluster(nodes, ranks or RANKS_A_NODE, self.device)
        model = describe(config_of(case), manifest_of(case))
        step = step_of(model, model.plan(cluster, explain=False), cluster)
        return step.tables_ms, step.dense_ms

    def seconds(self, case: Case) -> float:
        """Of a step; nan where the tables do not fit."""
        try:
            return sum(self.ms(case)) / 1e3
        except DoesNotFit:
            return float("nan")


def fitted(base: Case, tables_ms: float, dense_ms: float, link: float) -> Model:
    """The device by which the model's step of one rank is the one measured at `base`.

    Args:
        tables_ms, dense_ms: measured there: lookups with the tables' step, and all the rest.
        link: bytes a second between two ranks, measured; the model's network is taken to be no faster.
    """
    base, device = replace(base, ranks=1), PRESETS["cpu"]
    device = replace(device, node_link=link, network=min(link, device.network))
    for _ in range(ROUNDS):
        said_tables, said_dense = Model(device).ms(base)
        bandwidth, flops = device.ddr_bandwidth * said_tables / tables_ms, device.flops * said_dense / dense_ms
        device = replace(device, ddr_bandwidth=bandwidth, flops=flops)
    return Model(device)


def tables_share(case: Case) -> float:
    """Of a step of one rank, what lookups and the tables' own step take, from the profiler; runs in this process."""
    from dmoe import distributed
    from tools.bench import phases

    session, batches = opened(replace(case, ranks=1))
    for _ in range(2):
        session.pipeline.progress(batches)
    by_phase, _ = phases.measure(lambda: session.pipeline.progress(batches), 3)
    distributed.stop()
    return (by_phase["forward: lookup"] + by_phase["backward: tables' step"]) / sum(by_phase.values())


def two_processes() -> tuple[float, float]:
    """Of this machine: bytes a second from one to the other, by gloo's all-to-all of 4 MB, of which half leaves a rank; and how many times
    the products of one alone both do at once."""
    from tools.bench import collectives

    found = collectives.measured((4 << 20,), (), 1, 1)
    (one,) = [each for each in found.collectives if each.name == "all_to_all"]
    return one.bytes / 2 / one.median_us * 1e6, found.together
