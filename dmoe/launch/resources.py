"""What a job requests: nodes and processes (`--j 2x8`), and the named resources of each node, such as `--h h100x8`.

A scheduler refuses a job that requests more cores or memory than a node has, so the presets are below the smallest machine of each kind
(DGX, HGX, and those of the large clouds). Other sizes are given by `--cpu --gpu --memMB`, or by torchx's own names
(`torchx.specs.named_resources`, such as aws_p5.48xlarge).
"""

import re
from dataclasses import dataclass

import torchx.specs as specs

from dmoe.errors import UserError, nearest


@dataclass(frozen=True)
class Share:
    """CPUs and memory of a node for each of its GPUs."""

    cpus: int
    memory_mb: int


GPUS = {
    "a100": Share(cpus=11, memory_mb=80_000),
    "h100": Share(cpus=12, memory_mb=120_000),
    "h200": Share(cpus=12, memory_mb=180_000),
    "b200": Share(cpus=13, memory_mb=200_000),
    "l4": Share(cpus=5, memory_mb=20_000),
}
CPU_MEMORY_MB = 2048


def _presets() -> dict[str, specs.Resource]:
    made = {
        f"{gpu}x{count}": specs.Resource(cpu=share.cpus * count, gpu=count, memMB=share.memory_mb * count)
        for gpu, share in GPUS.items()
        for count in (1, 2, 4, 8)
    }
    return made | {f"cpu{count}": specs.Resource(cpu=count, gpu=0, memMB=CPU_MEMORY_MB * count) for count in (1, 2, 4, 8, 16, 32, 64)}


PRESETS = _presets()


def resource(h: str | None, cpu: int, gpu: int, memory_mb: int) -> specs.Resource:
    """The named resource if `h` is given, else one of cpu, gpu and memory.

    Raises:
        UserError: there is no such name; suggests the nearest.
    """
    if not h:
        return specs.resource(cpu=cpu, gpu=gpu, memMB=memory_mb)
    if h in PRESETS:
        return PRESETS[h]
    if h not in specs.named_resources:
        raise UserError(f"--h {h}: no such resource{nearest(h, PRESETS)}; or give --cpu, --gpu and --memMB")
    return specs.named_resources[h]


@dataclass(frozen=True)
class Ranks:
    nodes: int
    per_node: int

    @property
    def total(self) -> int:
        return self.nodes * self.per_node


def parse_ranks(j: str, resource: specs.Resource) -> Ranks:
    """Parses `2x8`. With `2` alone, each node has one process for each GPU, or one process if it has no GPU.

    Raises:
        UserError: the text has another form, or there are more processes than GPUs.
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", j)
    if not found:
        raise UserError(f"--j {j}: expected NODESxPROCS, such as 2x8 for two nodes of eight processes")
    nodes, per_node = int(found[1]), int(found[2] or max(resource.gpu, 1))
    if nodes < 1 or per_node < 1:
        raise UserError(f"--j {j}: expected at least one node and one process")
    if resource.gpu > 0 and per_node > resource.gpu:
        raise UserError(f"--j {j}: {per_node} processes on a node with {resource.gpu} GPUs; each rank needs its own GPU")
    return Ranks(nodes, per_node)
