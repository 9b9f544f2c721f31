"""Models for which neither memory alone is enough: some tables on the devices, the others in the hosts' memory."""

import itertools

import numpy as np
import pytest

from dmoe.config.config import parse_config
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.cost.enumerator import Candidate
from dmoe.sharding.planner.planning_model import describe, manifest_of
from dmoe.sharding.planner.room import DoesNotFit
from dmoe.sharding.planner.search.partitioner import Room
from dmoe.sharding.planner.search.problem import Problem
from dmoe.sharding.planner.search.search import search


def whole(kernel, time, hbm, ddr):
    size = np.array([[4, 4]])
    return Candidate("table_wise", kernel, size, size * 0, np.array([time]), np.array([hbm]), np.array([ddr]))


def drawn(seed):
    """Six tables on two ranks; either memory holds 30 to 90 % of them, both hold 105 to 150 %."""
    draw = np.random.default_rng(seed)
    sizes = draw.uniform(1, 3, 6) if seed % 2 else np.full(6, 2.0)
    device = draw.uniform(0.3, 0.9)
    host = min(draw.uniform(1.05, 1.5) - device, 0.95)
    kinds = tuple((whole("fused", size, size, 0.0), whole("fused_uvm", 9 * size, 0.02 * size, size)) for size in sizes.tolist())
    hbm, ddr = device * sizes.sum() / 2, host * sizes.sum() / 2
    return Problem(kinds, tuple(range(6)), (None,) * 6, Room(1, 2, np.full(2, hbm), np.full(2, ddr)))


def best_of_all(asked):
    """The fastest of all ways to put each table on a rank, in one memory or the other; infinite where none fits."""
    best = np.inf
    for ways in itertools.product(itertools.product(range(2), range(2)), repeat=6):
        time, hbm, ddr = np.zeros(2), np.zeros(2), np.zeros(2)
        for group, (pick, rank) in zip(asked.candidates, ways, strict=True):
            time[rank] += group[pick].time[0]
            hbm[rank] += group[pick].hbm[0]
            ddr[rank] += group[pick].ddr[0]
        if (hbm <= asked.room.hbm + 1e-9).all() and (ddr <= asked.room.ddr + 1e-9).all():
            best = min(best, float(time.max()))
    return best


@pytest.mark.slow
def test_a_mixture_is_found_where_there_is_one():
    ratios, missed = [], 0
    for seed in range(40):
        asked = drawn(seed)
        best, found = best_of_all(asked), search(asked)
        if np.isinf(best):
            assert found is None, seed
        elif found is None:
            missed += 1
        else:
            assert found.bound <= best * (1 + 1e-9), seed
            ratios.append(found.placed.time.max() / best)
    # Seen: 25 of 26, the mean 1.0001. Which tables fill two ranks exactly is a puzzle of its own.
    assert len(ratios) >= 20
    assert missed <= 2
    assert min(ratios) >= 1 - 1e-9
    assert np.mean(ratios) < 1.05


def model(gigabytes, tables=40):
    """Equal tables of so many GB in all, weights and Adagrad's state."""
    config = parse_config("model: {embedding: {dim: 64}, experts: [mlp]}\ntrain: {batch_size: 8192}", "config")
    rows = int(gigabytes * 1e9 / tables / (64 * 8))
    return describe(config, manifest_of({f"C{number}": rows for number in range(tables)}, "sizes"))


@pytest.mark.parametrize("cluster", ["1x2:a100-40", "2x4:a100-40"])
def test_a_model_larger_than_either_memory_has_a_plan(cluster):
    cluster = parse_cluster(cluster)
    # A device has 43 GB, 15 % of which are reserved, and a rank's share of the host's memory is 275 GB.
    plan = model(290 * cluster.ranks).plan(cluster, explain=False)
    device, host = np.zeros(cluster.ranks), np.zeros(cluster.ranks)
    for row in plan["tables"].values():
        for shard in row["shards"]:
            memory = host if "uvm" in row["compute_kernel"] else device
            memory[shard["rank"]] += shard["rows"] * shard["columns"] * 8
    assert device.sum() + host.sum() == pytest.approx(290e9 * cluster.ranks, rel=1e-6)
    assert (device <= cluster.device.hbm).all()
    assert (host <= cluster.device.ddr).all()
    assert host.sum() > 0.7 * 290e9 * cluster.ranks
    assert device.sum() > 15e9 * cluster.ranks


def test_a_model_larger_than_both_memories_has_none():
    with pytest.raises(DoesNotFit):
        model(2 * 320).plan(parse_cluster("1x2:a100-40"), explain=False)
