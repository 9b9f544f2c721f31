"""Pointer files: the first line names the scorer that dmoe serve answers by, the following ones those that it had before, newest first.

A name is a path, seen from the pointer's own folder.
"""

import os
from collections.abc import Callable

from dmoe.errors import UserError, one_line
from dmoe.paths import PATHS, join, read_bounded, write_text
from dmoe.serve.format import FILE

MAX_POINTER = 1 << 20
KEPT = 20
"""Earlier versions that a pointer remembers."""


def read_pointer(path: str, asked_by: str = "") -> list[str]:
    """The names of the current version and of those before it.

    Args:
        asked_by: begins messages; `--pointer PATH` where empty.

    Raises:
        UserError: there is no such file, or it names nothing.
    """
    asked_by = asked_by or f"--pointer {path}"
    text = read_bounded(path, MAX_POINTER, "pointer file", asked_by).decode(errors="replace")
    names = [line.strip() for line in text.splitlines()]
    if not names or not names[0]:
        raise UserError(f"{asked_by}: neither a scorer (no {FILE}) nor a file whose first line names one")
    return [name for name in names if name]


def folder_at(path: str, name: str) -> str:
    """The folder that a pointer means by a name."""
    return name if os.path.isabs(name) or "://" in name else join(os.path.dirname(path) or ".", name)


def publish(path: str, folder: str, try_out: Callable[[str], object]) -> list[str]:
    """Makes a scorer the current version, once it has been loaded and has scored some rows.

    Args:
        path: the pointer; a new one where there is none.
        folder: the scorer, a path as this process sees it.
        try_out: called with the folder; raises what is wrong with it.

    Returns:
        the pointer's lines by now.

    Raises:
        UserError: the scorer cannot be loaded.
    """
    before = read_pointer(path) if PATHS.exists(path) else []
    beside = os.path.dirname(path) or "."
    name = folder if os.path.isabs(folder) or "://" in folder else os.path.relpath(folder, beside)
    return _write(path, try_out, [name, *(one for one in before if one != name)])


def rollback(path: str, try_out: Callable[[str], object], to: str = "") -> list[str]:
    """Makes an earlier version the current one. The one that was is not kept: it is the one to leave.

    Args:
        to: a name of the pointer's; the one before the current where empty.

    Returns:
        the pointer's lines by now.

    Raises:
        UserError: there is none, or it cannot be loaded.
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
