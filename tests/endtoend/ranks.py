"""The ranks that a torchrun has started."""

import contextlib
from pathlib import Path


def ranks_of(agent: int) -> list[int]:
    """Process ids, in the order of their starts. Other children of the agent may end while they are looked at."""
    found = []
    for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"dmoe.train" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found
