"""Pointer files: the first line names the scorer that dmoe serve uses; the other lines name the earlier ones, newest first.

A name is a path relative to the folder of the pointer file, an absolute path, or a URI.
"""

import os
from collections.abc import Callable

from dmoe.errors import UserError, one_line
from dmoe.serve.export.format import FILE
from dmoe.storage.paths import PATHS, join, read_bounded, write_text

MAX_POINTER = 1 << 20
KEPT = 20
"""Number of earlier versions that a pointer file keeps."""


def read_pointer(path: str, asked_by: str = "") -> list[str]:
    """The names of the current version and of the earlier ones.

    Args:
        asked_by: start of error messages; `--pointer PATH` if empty.

    Raises:
        UserError: the file is missing or names no version.
    """
    asked_by = asked_by or f"--pointer {path}"
    text = read_bounded(path, MAX_POINTER, "pointer file", asked_by).decode(errors="replace")
    names = [line.strip() for line in text.splitlines()]
    if not names or not names[0]:
        raise UserError(f"{asked_by}: neither a scorer (no {FILE}) nor a file whose first line names one")
    return [name for name in names if name]


def folder_at(path: str, name: str) -> str:
    """Resolves a name in the pointer file `path` to a folder."""
    return name if os.path.isabs(name) or "://" in name else join(os.path.dirname(path) or ".", name)


def publish(path: str, folder: str, try_out: Callable[[str], object]) -> list[str]:
    """Makes a scorer the current version, after `try_out` has accepted it.

    Args:
        path: the pointer file; created if missing.
        folder: folder of the scorer, relative to the working directory.
        try_out: loads the scorer in a folder and scores some rows; raises an error if that fails.

    Returns:
        the new lines of the pointer file.

    Raises:
        UserError: the scorer cannot be loaded.
    """
    before = read_pointer(path) if PATHS.exists(path) else []
    beside = os.path.dirname(path) or "."
    name = folder if os.path.isabs(folder) or "://" in folder else os.path.relpath(folder, beside)
    return _write(path, try_out, [name, *(one for one in before if one != name)])


def rollback(path: str, try_out: Callable[[str], object], to: str = "") -> list[str]:
    """Makes an earlier version the current one. Versions newer than it are removed from the pointer file.

    Args:
        to: name of a version in the pointer file; if empty, the one before the current version.

    Returns:
        the new lines of the pointer file.

    Raises:
        UserError: there is no such version, or it cannot be loaded.
    """
    names = read_pointer(path)
    earlier = names[1:]
    if to and to not in earlier:
        known = f"it has {', '.join(map(one_line, earlier))}" if earlier else "it has none"
        raise UserError(f"--to {one_line(to)}: not among the earlier versions of {path}; {known}; dmoe versions publish takes any")
    if not earlier:
        raise UserError(f"{path}: names no version before {one_line(names[0])}; dmoe versions publish takes any")
    return _write(path, try_out, earlier[earlier.index(to) if to else 0 :])


def _write(path: str, try_out: Callable[[str], object], names: list[str]) -> list[str]:
    try_out(folder_at(path, names[0]))
    write_text(path, "\n".join(names[: KEPT + 1]) + "\n")
    return names
