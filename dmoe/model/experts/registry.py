"""Experts by name: `@register` adds a kind, `build_expert` makes one from plain values and names what is wrong with them.

The contract of an expert:

- a `nn.Module` that maps the fields of a table set, [B, F, K] float, to its interaction, [B, out_dim];
- built with the keywords `num_fields` (F), `field_dim` (K) and typed options of plain values (int, float, bool, str, lists of them);
- with an attribute `out_dim: int` and a method `flops() -> int`: 2 for every multiply-add of a row's forward pass in matrix products and in
  products between embeddings. Biases, norms, activations and sums are left out.

No statistic of the batch may enter an expert (batch norm): it would differ over ranks, and the plan must not change the mathematics.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from torch import nn

from dmoe.errors import UserError, nearest, one_line
from dmoe.strict import explain

Expert = TypeVar("Expert", bound=type[nn.Module])

_KINDS: dict[str, type[nn.Module]] = {}
_SIZES = ("num_fields", "field_dim")


def register(kind: str) -> Callable[[Expert], Expert]:
    """Class decorator: makes an expert known to `build_expert` as `kind`.

    Raises:
        UserError: the kind is another class's, or the class is not built with `num_fields` and `field_dim`.
    """

    def add(expert: Expert) -> Expert:
        name = f"{expert.__module__}.{expert.__qualname__}"
        known = _KINDS.get(kind)
        # A reloaded module defines the same class anew: it replaces the old one.
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
    """The expert of that kind.

    Args:
        kind: one of `expert_kinds()`.
        num_fields: F.
        field_dim: K.
        options: the kind's own; defaults where absent.

    Raises:
        UserError: an unknown kind or option (the nearest one is named), a missing option, a wrong type, a value out of its range, or a
            class that breaks the contract.

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
