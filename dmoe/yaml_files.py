"""YAML files of keys and values: read whole, within bounds, and laid over the files that they extend."""

from typing import Any

from dmoe.errors import UserError
from dmoe.paths import join, read_bounded
from dmoe.yaml_text import NotYaml, OnceLoader, parse_yaml

MAX_EXTENDS = 8


def parse_mapping(text: str | bytes, where: str, expected: str, loader: type[OnceLoader] = OnceLoader) -> dict[str, Any]:
    """The keys and values of a text; none where it is empty.

    Args:
        where: begins the error messages.
        expected: what should be there, such as `a line a feature`.

    Raises:
        UserError: not YAML, or no keys and values.
    """
    try:
        tree = parse_yaml(text, loader)
    except NotYaml as error:
        raise UserError(f"{where}{error.where}: not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected {expected}, found {type(tree).__name__}")
    return tree


def read_mapping(path: str, asked_by: str, most: int, kind: str, expected: str, loader: type[OnceLoader] = OnceLoader) -> dict[str, Any]:
    """As `parse_mapping`, of a file; see `read_bounded` for most and kind."""
    return parse_mapping(read_bounded(path, most, kind, asked_by), path, expected, loader)


def read_extended(
    path: str, asked_by: str, most: int, kind: str, expected: str, loader: type[OnceLoader] = OnceLoader, depth: int = 0
) -> dict[str, Any]:
    """As `read_mapping`; a file that `extends:` another, named relative to itself, is laid over that one.

    Raises:
        UserError: as the others, and where files extend one another in a circle.
    """
    if depth > MAX_EXTENDS:
        raise UserError(f"{path}: more than {MAX_EXTENDS} files extend one another; is there a circle?")
    tree = read_mapping(path, asked_by, most, kind, expected, loader)
    if (base := tree.pop("extends", None)) is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: extends: expected a file's name, found {base!r}")
    below = read_extended(beside(path, base), f"{path}: extends: {base}", most, kind, expected, loader, depth + 1)
    merged: dict[str, Any] = laid_over(below, tree)
    return merged


def beside(path: str, name: str) -> str:
    """What a file means by a name: relative to its own folder."""
    return name if name.startswith("/") or "://" in name else join(path.rpartition("/")[0], name)


def laid_over(base: Any, top: Any) -> Any:
    """Two trees as one: where both have a key, the one on top has its way; lists are values."""
    if isinstance(base, dict) and isinstance(top, dict):
        return base | {key: laid_over(base[key], value) if key in base else value for key, value in top.items()}
    return top
