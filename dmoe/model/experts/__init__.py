"""Experts: interactions of the fields of a table set. Each kind has a file and is built by name.

Importing this package registers the bundled kinds; a user's module adds its own with `@register("kind")`.
"""

from dmoe.model.experts import cin, crossnet, finalmlp, fwfm, gdcn, gwpfm, ipnn, masknet, mlp, wukong
from dmoe.model.experts.registry import build_expert, expert_kinds, register

__all__ = [
    "build_expert",
    "cin",
    "crossnet",
    "expert_kinds",
    "finalmlp",
    "fwfm",
    "gdcn",
    "gwpfm",
    "ipnn",
    "masknet",
    "mlp",
    "register",
    "wukong",
]
