"""Shares the reason of a failure between ranks, through keys in the store of the process group, so that it is printed once."""

import contextlib
import os
import time
from typing import Any

from dmoe.json_text import format_json
from dmoe.names import printable
from dmoe.terminal import tell

LOST = 3
"""Exit code of a rank that lost another rank, or that hung."""
FAULT, SAID = "dmoe/fault", "dmoe/said"
"""Keys: the first fault (rank, message, exit code), and whether it has been printed."""


def say(program: str, message: str) -> None:
    """Prints the message, and writes it to torchrun's error file, so that torchrun's report shows it."""
    message = printable(message)
    tell(f"{program}: {message}", "error", "error")
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError), open(path, "w") as file:
            file.write(format_json({"message": {"message": message, "extraInfo": extra}}))


def say_once(store: Any, program: str, message: str) -> bool:
    """Prints why the run ends, as `say` does, unless some rank has done so already. Returns whether this rank printed it."""
    first = bool(store.add(f"{SAID}/count", 1) == 1)
    if first:
        say(program, message)
        store.set(SAID, "1")
    return first


def group_store() -> Any:
    """A new connection to the store that all ranks share; None for a single rank."""
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    try:
        return dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
    except RuntimeError:
        return None
