"""`--j NODESxPROCS`: how many nodes, and how many processes on each."""

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
    """Reads `2x8`; `2` alone gives each node a process for each of its GPUs, or one.

    Raises:
        UserError: not of that form, or more processes than GPUs.
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", j)
    if not found:
        raise UserError(f"--j {j}: expected NODESxPROCS, such as 2x8 for two nodes of eight processes")
    nodes, per_node = int(found[1]), int(found[2] or max(resource.gpu, 1))
    if nodes < 1 or per_node < 1:
        raise UserError(f"--j {j}: expected at least one node and one process")
    if resource.gpu > 0 and per_node > resource.gpu:
        raise UserError(f"--j {j}: {per_node} processes of a node, which has {resource.gpu} GPUs; a rank takes one GPU")
    return Ranks(nodes, per_node)
