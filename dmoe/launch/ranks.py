"""Parses `--j NODESxPROCS`: the number of nodes, and of processes on each."""

import re
from dataclasses import dataclass

import torchx.specs as specs

from dmoe.errors import UserError


@dataclass(frozen=True)
class Ranks:
    nodes: int
    per_node: int

    @property
    def total(self) -> int:
        return self.nodes * self.per_node


def parse_ranks(j: str, resource: specs.Resource) -> Ranks:
    """Parses `2x8`. With `2` alone, each node has one process for each GPU, or one process if it has no GPU."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", j)
    if not found:
        raise UserError(f"--j {j}: expected NODESxPROCS, such as 2x8 for two nodes of eight processes")
    nodes, per_node = int(found[1]), int(found[2] or max(resource.gpu, 1))
    if nodes < 1 or per_node < 1:
        raise UserError(f"--j {j}: expected at least one node and one process")
    if resource.gpu > 0 and per_node > resource.gpu:
        raise UserError(f"--j {j}: {per_node} processes on a node with {resource.gpu} GPUs; each rank needs its own GPU")
    return Ranks(nodes, per_node)
