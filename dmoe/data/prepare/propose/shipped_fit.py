"""Whether a log is one of those whose schemas dmoe brings along: then its columns are known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmoe.data.prepare.propose.profile import HEX_DIGITS, Profile
from dmoe.data.prepare.schema import Dense, Schema, load_schema, shipped

FEWEST = 5
"""Columns that a schema has to name for its names to be proof."""


@dataclass(frozen=True)
class Fit:
    """`names` of the schemas that fit; the `columns` of a log without a header; what the first makes of each column: (kind, tree)."""

    names: tuple[str, ...]
    columns: tuple[str, ...]
    label: str
    roles: dict[str, tuple[str, dict[str, Any]]]


def find_fit(profiles: Sequence[Profile], header: bool) -> Fit | None:
    """
    Args:
        header: whether the profiles' names are the log's own.
    """
    found = {name: schema for name in shipped() if _fits(schema := load_schema(name), profiles, header)}
    if not found:
        return None
    # The one that makes most of the log is the one to read.
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
    """Whether it names the log's columns, or, where the log does not, as many; and reads their values."""
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


def named(profiles: Sequence[Profile], columns: Sequence[str]) -> list[Profile]:
    """The profiles under the columns' names."""
    return [replace(one, name=name) for one, name in zip(profiles, columns, strict=True)]
