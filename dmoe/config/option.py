"""Fields of a dataclass that the command line sets (dmoe.cli.options makes its options of them)."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Said:
    """How a field is said on the command line. `scale`: the option's unit in the field's, such as 2^20 bytes a MB."""

    help: str
    flag: str
    metavar: str | None
    scale: int


def option(default: Any, help: str, *, flag: str = "", metavar: str | None = None, scale: int = 1) -> Any:
    """A field of a dataclass that the command line sets.

    Args:
        default: MISSING where the option must be given.
        flag: `--` and the field's name, unless told.
    """
    return field(default=default, metadata={"said": Said(help, flag, metavar, scale)})
