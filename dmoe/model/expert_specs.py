"""The experts that a config describes, and the table sets that they read. Does not import torch."""

import copy
from dataclasses import dataclass
from typing import Any

from dmoe.config.model_sections import ModelConfig
from dmoe.errors import UserError, shown

RANGES = {"dim": (1, 4096), "table_set": (0, 63)}
"""Ranges of those options of an expert that describe its table set."""


@dataclass(frozen=True)
class ExpertSpecs:
    """The experts, in the order of the config.

    Attributes:
        experts: (kind, options) of each expert.
        set_of_expert: the table set that each expert reads.
        set_dims: dim of each table set.
    """

    experts: tuple[tuple[str, dict[str, Any]], ...]
    set_of_expert: tuple[int, ...]
    set_dims: tuple[int, ...]


def expert_specs(model: ModelConfig) -> ExpertSpecs:
    """Parses `model.experts`.

    Raises:
        UserError: an expert without a kind, or inconsistent table sets.
    """
    experts: list[tuple[str, dict[str, Any]]] = []
    sets: list[int] = []
    dims: dict[int, int] = {}
    for index, spec in enumerate(model.experts):
        kind, options = _expert(spec, index)
        table_set = options.pop("table_set", 0 if model.embedding.sets == "shared" else index)
        dim = options.pop("dim", model.embedding.dim)
        if dims.setdefault(table_set, dim) != dim:
            raise UserError(f"model.experts: expert {index + 1} wants dim {dim} of table set {table_set}, which has dim {dims[table_set]}")
        experts.append((kind, options))
        sets.append(table_set)
    if sorted(dims) != list(range(len(dims))):
        raise UserError(f"model.experts: table sets are {sorted(dims)}, expected 0 to {len(dims) - 1} without a gap")
    if model.embedding.sets in ("light", "hashed") and len(set(dims.values())) > 1:
        raise UserError(
            f"model.experts: dims of the table sets are {list(dims.values())}, expected one, as sets {model.embedding.sets} share a table"
        )
    return ExpertSpecs(tuple(experts), tuple(sets), tuple(dims[index] for index in range(len(dims))))


def _expert(spec: str | dict[str, Any], index: int) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    options = copy.deepcopy(spec)
    kind = options.pop("kind", None)
    if not isinstance(kind, str):
        raise UserError(f"model.experts: expert {index + 1} names no 'kind'")
    for name, (low, high) in RANGES.items():
        value = options.get(name, low)
        if type(value) is not int or not low <= value <= high:
            raise UserError(f"model.experts: expert {index + 1}: {name} is {shown(value)}, expected a whole number from {low} to {high:,}")
    return kind, options
