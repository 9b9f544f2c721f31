"""JSON files of ours. Each says what it is: its `format`, and the `version` of that."""

from typing import Any

from dmoe.errors import UserError, shown
from dmoe.json_text import is_int, parse_json
from dmoe.storage.paths import read_bounded


def read_document(path: str, most: int, kind: str, form: str, version: int, again: str, asked_by: str = "") -> dict[str, Any]:
    """The object of a file of this format and version.

    Args:
        kind: what it is, for messages, such as `plan`.
        again: what to do about a file that cannot be read, such as `export it again`.
        most, asked_by: as of `read_bounded`.

    Raises:
        UserError: no such file, not JSON, or of another format or version.
    """
    try:
        tree = parse_json(read_bounded(path, most, kind, asked_by))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); {again}") from None
    check_format(tree, path, kind, form, version, again)
    return dict(tree)


def check_format(tree: Any, where: str, kind: str, form: str, version: int, again: str) -> None:
    """As `read_document`, of what was read already; `where` begins the messages."""
    if not isinstance(tree, dict) or tree.get("format") != form:
        raise UserError(f"{where}: not a dmoe {kind} (its format is not '{form}'); {again}")
    if not is_int(tree.get("version"), version):
        raise UserError(f"{where}: {kind} version {shown(tree.get('version'))}, this dmoe reads version {version}; {again}")
