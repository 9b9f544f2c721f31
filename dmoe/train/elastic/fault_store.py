"""Where the ranks of a job leave why they end, so that one message is printed for all: keys in the group's store."""

import contextlib
import os
import sys
import time
from typing import Any

from dmoe.json_text import format_json
from dmoe.names import printable

LOST = 3
"""Exit code of a rank that lost another one, or hung."""
FAULT, SAID = "dmoe/fault", "dmoe/said"
"""Keys: the first fault (rank, message, exit code), and whether it has been printed."""


def say(program: str, message: str) -> None:
    """Prints it, and leaves it for torchrun's own report of the failure, which would otherwise have none to show."""
    message = printable(message)
    print(f"{program}: {message}", file=sys.stderr, flush=True)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError), open(path, "w") as file:
            file.write(format_json({"message": {"message": message, "extraInfo": extra}}))


def group_store() -> Any:
    """The store that all ranks share, over a connection of its own; None in a single process."""
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    try:
        return dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
    except RuntimeError:
        return None
