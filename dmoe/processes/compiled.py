"""Compiles functions with numba, keeps the machine code on disk, and says so when it compiles.

numba's own cache numbers the files of a function: one file for each signature. Two processes that compile two signatures at the same
time, as on a fresh install, may use the same number for both. Later processes then load the code of the wrong signature. Here, the name
of a file contains a hash of its signature instead.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.caching import IndexDataCacheFile
from numba.core.event import Event, Listener, register

from dmoe.terminal import tell


def compiled(function: Callable[..., Any], inline: str = "never") -> Any:
    """Decorates a function: numba compiles it for each signature with which it is called. It does not hold the GIL."""
    made = njit(nogil=True, cache=True, inline=inline)(function)
    # With NUMBA_DISABLE_JIT the function is not compiled.
    if made is not function:
        numbered = made._cache._cache_file
        made._cache._cache_file = CacheFile(numbered._cache_path, made._cache._impl.filename_base, numbered._source_stamp)
    return made


class CacheFile(IndexDataCacheFile):
    """The cached code of a function. If two processes save at once, one of the entries may be lost, and is compiled again."""

    def save(self, key: Any, data: Any) -> None:
        name = hashlib.sha256(repr((key, self._source_stamp)).encode()).hexdigest()[:16]
        name = self._index_name.removesuffix("nbi") + name + ".nbc"
        # The data first, so that the index never names a file that is not there yet.
        self._save_data(name, data)
        self._save_index(self._load_index() | {key: name})


class Notice(Listener):
    """Says once that functions of dmoe are compiled. Says nothing if all of them come from the cache."""

    said = False

    def on_start(self, event: Event) -> None:
        if not self.said and event.data["dispatcher"].py_func.__module__.startswith("dmoe."):
            self.said = True
            tell("compiling, as a first run does: up to 15 seconds; later runs find it on disk", event="compiling")

    def on_end(self, event: Event) -> None:
        """Does nothing."""


register("numba:compile", Notice())
