"""What a training needs at the least, against what a host, a container or a GPU has."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dmoe.config.config import parse_config
from dmoe.model.budget.cost import Cost, SetCost
from dmoe.train import memory

GB = 10**9
COST = Cost(
    sets=(SetCost((0,), 0, 2 * GB, 1, 1),),
    table_state_bytes=2 * GB,
    dense_parameters=10**6,
    dense_state_bytes=8 * 10**6,
    flops={},
    lookups=1,
    lookup_bytes=1000,
    saved_bytes=8000,
)
CPU = torch.device("cpu")


@pytest.fixture
def two_of_four(monkeypatch):
    """This host has two of four ranks; `two_of_four(bytes)` sets what it has."""
    monkeypatch.setattr(memory, "world_size", lambda: 4)
    monkeypatch.setattr(memory, "local_world_size", lambda: 2)
    return lambda there: monkeypatch.setattr(memory, "memory_limit", lambda: float(there))


def config(rows, *overrides):
    return parse_config("{}", "test", [f"train.batch_size={rows}", *overrides])


def test_the_ranks_of_a_host_are_added_up(two_of_four):
    # A rank: 1 GB of tables, 10 kB for each of 100,000 rows, 16 MB of the dense part: 2.016 GB.
    two_of_four(4.1 * GB)
    assert memory.shortage(config(400_000), COST, CPU) is None
    two_of_four(4.0 * GB)
    said = memory.shortage(config(400_000), COST, CPU)
    assert said.startswith("memory: ")
    assert "4.03 GB" in said
    assert "there is only 4 GB" in said


@pytest.mark.parametrize(("rows", "remedy"), [(4_000_000, "train.batch_size"), (4_000, "model.embedding.dim")])
def test_the_remedy_is_for_what_takes_most(two_of_four, rows, remedy):
    two_of_four(1 * GB)
    assert remedy in memory.shortage(config(rows), COST, CPU).rpartition(";")[2]


def test_nothing_is_refused_that_bf16_may_make_fit(two_of_four):
    two_of_four(3.1 * GB)
    assert memory.shortage(config(400_000), COST, CPU)
    assert memory.shortage(config(400_000, "train.precision=bf16"), COST, CPU) is None


def test_a_gpu_is_a_rank_s_own_and_its_tables_may_lie_in_the_host(two_of_four, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=2 * GB))
    cuda, large = torch.device("cuda", 0), replace(COST, table_state_bytes=1000 * GB)
    assert memory.shortage(config(400_000), large, cuda) is None
    assert "a GPU" in memory.shortage(config(4_000_000), large, cuda)


def host(root, limits, groups):
    """A root with 24 GB of memory, 1 GB of swap, and control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:       24000000 kB\nMemFree: 1 kB\nSwapTotal:       1000000 kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for path, text in limits.items():
        (root / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / path).write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("limits", "groups", "expected"),
    [
        ({}, "", 25_000_000 * 1024),
        ({"memory.max": "max\n"}, "0::/\n", 25_000_000 * 1024),
        ({"memory.max": "5000000000\n"}, "0::/\n", 5e9),
        ({"a/memory.max": "7000000000\n", "a/b/memory.max": "max\n"}, "0::/a/b\n", 7e9),
        ({"a/memory.max": "7000000000\n", "a/b/memory.max": "3000000000\n"}, "0::/a/b\n", 3e9),
        # As a container sees it: its own group is named from the host's root, and mounted at the top.
        ({"memory.max": "4000000000\n"}, "0::/docker/0123\n", 4e9),
        ({"memory/x/memory.limit_in_bytes": "6000000000\n"}, "3:cpu,cpuacct:/x\n2:memory:/x\n", 6e9),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "2:memory:/\n", 25_000_000 * 1024),
    ],
)
def test_the_lowest_limit_above_this_process_holds(tmp_path, limits, groups, expected):
    assert memory.memory_limit(host(tmp_path, limits, groups)) == expected


def test_a_system_that_does_not_tell_has_no_limit(tmp_path):
    assert memory.memory_limit(str(tmp_path)) == float("inf")
