"""The registry of experts. `@register` adds a kind; `build_expert` builds an expert from plain values and reports wrong values.

The contract of an expert:

- It is an `nn.Module` that maps the fields of a table set, [B, F, K] float, to an interaction [B, out_dim].
- Its constructor has the keywords `num_fields` (F), `field_dim` (K) and typed options with plain values (int, float, bool, str, lists).
- It has an attribute `out_dim: int` and a method `flops() -> int`: the FLOPs of the forward pass of one row, 2 per multiply-add in matrix
  products and in products of embeddings. Biases, norms, activations and sums do not count.

An expert must not use statistics of the batch, as batch norm does: they would differ between ranks, and the plan must not change the
mathematics. `model.expert_norm: batch` normalizes the outputs of the experts over the global batch.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from torch import nn

from dmoe.config.strict import explain
from dmoe.errors import UserError, nearest, one_line

Expert = TypeVar("Expert", bound=type[nn.Module])

_KINDS: dict[str, type[nn.Module]] = {}
_SIZES = ("num_fields", "field_dim")


def register(kind: str) -> Callable[[Expert], Expert]:
    """Class decorator that registers an expert under the name `kind`.

    Raises:
        UserError: another class has this kind, or the constructor lacks `num_fields` or `field_dim`.
    """

    def add(expert: Expert) -> Expert:
        name = f"{expert.__module__}.{expert.__qualname__}"
        known = _KINDS.get(kind)
        # A reloaded module defines the same class again. It replaces the old one.
        if known is not None and f"{known.__module__}.{known.__qualname__}" != name:
            raise UserError(f"expert '{kind}': {name} cannot take this name, it is {known.__module__}.{known.__qualname__}'s")
        if missing := [size for size in _SIZES if size not in inspect.signature(expert).parameters]:
            raise UserError(f"expert '{kind}': {name}() has no parameter {' and no '.join(missing)}")
        _KINDS[kind] = expert
        return expert

    return add


def expert_kinds() -> list[str]:
    """The registered kinds, sorted."""
    return sorted(_KINDS)


def build_expert(kind: str, num_fields: int, field_dim: int, **options: Any) -> nn.Module:
    """Builds an expert of a kind.

    Args:
        kind: one of `expert_kinds()`.
        num_fields: F.
        field_dim: K.
        options: options of the kind. Absent ones have their defaults.

    Raises:
        UserError: an unknown kind or option (the message names the nearest one), a missing option, a wrong type, a value out of range,
            or a class that violates the contract.

    Examples:
        >>> build_expert("crossnet", num_fields=39, field_dim=16, num_layers=2).out_dim
        624
    """
    if kind not in _KINDS:
        raise UserError(f"expert '{one_line(kind)}': unknown kind{nearest(kind, _KINDS)}")
    if min(num_fields, field_dim) < 1:
        raise UserError(f"expert '{kind}': {num_fields} fields of {field_dim} dims, expected at least one of each")
    try:
        expert = _KINDS[kind](num_fields=num_fields, field_dim=field_dim, **_checked(_KINDS[kind], options))
    except UserError as error:
        raise UserError(f"expert '{kind}': {error}") from None
    out_dim = getattr(expert, "out_dim", None)
    if type(out_dim) is not int or out_dim < 1:
        raise UserError(f"expert '{kind}': {type(expert).__name__}.out_dim is {out_dim}, expected its output's width")
    if not callable(getattr(expert, "flops", None)):
        raise UserError(f"expert '{kind}': {type(expert).__name__} has no method flops()")
    return expert


def _checked(expert: type[nn.Module], options: dict[str, Any]) -> dict[str, Any]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(expert).parameters
    parameters = {name: parameter for name, parameter in signature.items() if parameter.kind in named and name not in _SIZES}
    hints = get_type_hints(expert.__init__, include_extras=True)
    for name in options:
        if name not in parameters:
            raise UserError(f"unknown option '{one_line(name)}'{nearest(name, parameters) or ', it has none'}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise UserError(f"option '{name}' is missing")
    return {name: _value(name, value, hints.get(name, Any)) for name, value in options.items()}


def _value(name: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except PydanticSchemaGenerationError:
        raise UserError(f"option '{name}' has the type {hint}, which a config cannot give") from None
    except ValidationError as error:
        raise UserError(f"option '{name}': {explain(error)}") from None
