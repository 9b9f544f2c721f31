"""Checks whether a training can fit into memory, before anything large is allocated."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from dmoe.config.config import Config
from dmoe.distributed import local_world_size, world_size
from dmoe.model.budget.cost import Cost
from dmoe.model.budget.sizes import human

HALVED = 0.5
"""bf16 and torch.compile may each reduce the memory of the activations, at most to this share."""


def memory_limit(root: str = "/") -> float:
    """Bytes that all processes of this host or container can use together: RAM and swap, or a lower limit of a control group. Infinite if
    the system does not report it.

    Args:
        root: folder that contains `proc` and `sys`.
    """
    try:
        fields = dict(line.split(":", 1) for line in Path(root, "proc/meminfo").read_text().splitlines())
        host = sum(float(fields[name].split()[0]) * 1024 for name in ("MemTotal", "SwapTotal"))
    except (OSError, KeyError):
        host = math.inf
    return min([host, *_group_limits(Path(root))])


def _group_limits(root: Path) -> Iterator[float]:
    """The memory limits of the control groups of this process and of their parents, for cgroup versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = ("sys/fs/cgroup/memory", "memory.limit_in_bytes") if controllers else ("sys/fs/cgroup", "memory.max")
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            try:
                text = (root / top / Path(*parts[:depth]) / name).read_text().strip()
            except OSError:
                continue
            if text.isdecimal():
                yield float(text)


def shortage(config: Config, cost: Cost, device: torch.device) -> str | None:
    """Why the training cannot fit into memory under any plan; None if it may fit.

    On CPUs, the ranks of a host share its memory. Each GPU belongs to one rank, and tables may be in the memory of the host instead.
    """
    ranks = world_size()
    rows = -(-config.train.batch_size // ranks)
    spared = HALVED ** ((config.train.precision == "bf16") + config.train.compile)
    tables = (cost.embedding_bytes + cost.table_state_bytes) / ranks
    batch = spared * cost.activation_bytes * rows
    dense = cost.training_bytes(0, ranks) - tables
    there: float
    if device.type == "cuda":
        needed, there, where = dense + batch, torch.cuda.get_device_properties(device).total_memory, "a GPU"
        held = f"{human(batch)} for the activations of {rows:,} rows, {human(dense)} for the dense part"
    else:
        local = min(local_world_size(), ranks)
        needed, there, where = local * (tables + dense + batch), memory_limit(), f"the {local} rank(s) of this host ({os.uname().nodename})"
        held = f"each {human(batch)} for the activations of {rows:,} rows, {human(tables)} for tables and their state, {human(dense)} else"
    if needed <= there:
        return None
    remedy = "a smaller train.batch_size" if batch > tables else "more hosts, a smaller model.embedding.dim or fewer experts"
    return f"memory: {where} would need at least {human(needed)} ({held}), but there is only {human(there)}; use {remedy}"
