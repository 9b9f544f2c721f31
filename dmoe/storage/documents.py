"""JSON files that dmoe writes and reads. Each has the fields `format` and `version`."""

from typing import Any

from dmoe.errors import UserError, shown
from dmoe.json_text import is_int, parse_json
from dmoe.storage.paths import read_bounded


def read_document(path: str, most: int, kind: str, form: str, version: int, again: str, asked_by: str = "") -> dict[str, Any]:
    """Reads a JSON object from a file, and checks its `format` and `version`.

    Args:
        most: largest size of the file, in bytes.
        kind: what the file describes, for messages, such as `plan`.
        form, version: expected values of `format` and `version`.
        again: advice for a file that cannot be read, such as `export it again`.
        asked_by: the option that names the file, for messages, such as `--plan X`; empty for the path.

    Raises:
        UserError: the file does not exist, is too large, is not JSON, or has another format or version.
    """
    try:
        tree = parse_json(read_bounded(path, most, kind, asked_by))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); {again}") from None
    check_format(tree, path, kind, form, version, again)
    return dict(tree)


def check_format(tree: Any, where: str, kind: str, form: str, version: int, again: str) -> None:
    """Checks the `format` and `version` of parsed JSON, as `read_document` does.

    Args:
        where: start of the error messages, such as the path.

    Raises:
        UserError: it is no JSON object, or has another format or version.
    """
    if not isinstance(tree, dict) or tree.get("format") != form:
        raise UserError(f"{where}: not a dmoe {kind} (its format is not '{form}'); {again}")
    if not is_int(tree.get("version"), version):
        raise UserError(f"{where}: {kind} version {shown(tree.get('version'))}, this dmoe reads version {version}; {again}")
