"""Recognises a log for which dmoe ships a schema."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dmoe.data.prepare.propose.profile import HEX_DIGITS, Profile
from dmoe.data.prepare.schema import Dense, Schema, load_schema, shipped

FEWEST = 5
"""A shipped schema must name at least this many columns to be recognised by their names."""


@dataclass(frozen=True)
class Fit:
    """The shipped schemas that fit a log.

    Attributes:
        names: of the schemas, the best first.
        columns: names of the columns of a log without a header, else empty.
        label: column of the label.
        roles: (kind, tree) of each column in the best schema.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    label: str
    roles: dict[str, tuple[str, dict[str, Any]]]


def find_fit(profiles: Sequence[Profile], header: bool) -> Fit | None:
    """The shipped schemas that fit, or None.

    Args:
        header: whether the names of the profiles come from the log.
    """
    found = {name: schema for name in shipped() if _fits(schema := load_schema(name), profiles, header)}
    if not found:
        return None
    # The schema with the most features is the best.
    names = sorted(found, key=lambda name: (-len(found[name].features), name))
    schema = found[names[0]]
    roles: dict[str, tuple[str, dict[str, Any]]] = {}
    for one in schema.features:
        plain = isinstance(one, Dense) or not (one.part or one.bucket or one.cross or one.pooling)
        if plain:
            kind = "dense" if isinstance(one, Dense) else "categorical"
            roles.setdefault(one.column or one.name, (kind, one.model_dump(mode="json", exclude_defaults=True)))
    return Fit(tuple(names), () if header else tuple(schema.columns or ()), schema.label.column, roles)


def _fits(schema: Schema, profiles: Sequence[Profile], header: bool) -> bool:
    """Whether a schema can read the log: it names the columns of the log (or, without a header, as many), and reads their values."""
    of = {one.name: one for one in profiles}
    if not header:
        if schema.columns is None or len(schema.columns) != len(profiles):
            return False
        of = dict(zip(schema.columns, profiles, strict=True))
    used = schema.used()
    if len(used) < FEWEST or not used.keys() <= of.keys() or not set(of[schema.label.column].texts(3)) <= {"0", "1"}:
        return False
    kinds = [(one.stored.partition(":")[0], one.column or one.name) for one in schema.stored if isinstance(one, Dense) or not one.part]
    return all(not of[column].distinct or _holds(of[column], kind, column in schema.whole_numbers) for kind, column in kinds)


def _holds(one: Profile, kind: str, whole: bool) -> bool:
    if kind == "number":
        return one.readable_as("number") if whole else one.is_number
    return kind not in ("hex", "int") or (one.readable_as(kind) and (kind == "int" or one.width == HEX_DIGITS))
