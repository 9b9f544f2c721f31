"""Makes command-line options from the fields of a dataclass, so that each option is defined once.

@dataclass
class Options:
    workers: int = option(0, "threads (one a core)")

add_options(parser, Options)
options = Options(**given(parser.parse_args(), Options))
"""

import argparse
import types
import typing
from dataclasses import MISSING, fields
from typing import Any


def add_options(parser: argparse.ArgumentParser, of: type, *leave_out: str, **defaults: Any) -> None:
    """Adds an option for every field of a dataclass that was defined by `option`.

    Args:
        leave_out: fields without an option.
        defaults: defaults that replace those of the fields, in the units of the fields.
    """
    kinds = typing.get_type_hints(of)
    for one in fields(of):
        said = one.metadata.get("said")
        if said is None or one.name in leave_out:
            continue
        default, kind = defaults.get(one.name, one.default), _bare(kinds[one.name])
        words: dict[str, Any] = {"help": said.help.replace(" (%(default)s)", "") if default is None else said.help, "dest": one.name}
        if default is MISSING:
            words["required"] = True
        else:
            words["default"] = default // said.scale if said.scale > 1 else default
        if kind is bool:
            words["action"] = "store_true"
        else:
            metavar = said.metavar or ("N" if kind in (int, float) else None)
            words |= {"metavar": metavar} if metavar else {}
            if typing.get_origin(kind) is typing.Literal:
                words["choices"] = typing.get_args(kind)
            elif typing.get_origin(kind) is list:
                words["nargs"] = "+"
            else:
                words["type"] = kind
        parser.add_argument(said.flag or f"--{one.name.replace('_', '-')}", **words)


def add_log_format(parser: argparse.ArgumentParser) -> None:
    """Adds `--log-format`, which `dmoe.cli.main` carries out."""
    parser.add_argument("--log-format", choices=("text", "json"), help="of what is said on the way; json: an object a line (text)")


def given(arguments: argparse.Namespace, of: type) -> dict[str, Any]:
    """The values of the fields of a dataclass from the command line, in the units of the fields."""
    found = {}
    for one in fields(of):
        if "said" in one.metadata and hasattr(arguments, one.name):
            value, scale = getattr(arguments, one.name), one.metadata["said"].scale
            found[one.name] = value * scale if scale > 1 else value
    return found


def _bare(kind: Any) -> Any:
    """The type without None."""
    if isinstance(kind, types.UnionType):
        (kind,) = (one for one in typing.get_args(kind) if one is not type(None))
    return kind
