"""Keeps installed packages from being imported."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Absent:
    """Finds no module of these packages, and lets no other finder look for them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = frozenset(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Within the block no module of these packages can be imported, as if they were not installed, except those that were before.

    pyarrow imports pandas, if it is installed, when it first converts an array, and numba imports scipy.linalg when it first loads a
    function. Each takes .2 s of one core, and is of no use to a command that needs neither. A library that has looked for the package
    within the block may remember that it is not there. The block is therefore for a command that owns its process.

    Example:
        >>> with hidden("pandas"):
        ...     import pyarrow
    """
    finder = _Absent(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
