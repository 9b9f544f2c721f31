"""How a rank's process ends: one message for all ranks, the process group left."""

import contextlib
import hashlib
import sys
from collections.abc import Callable

from dmoe.errors import USER_ERROR, UserError, run_command


def run_rank(program: str, main: Callable[[], None]) -> int:
    """As `run_command`, where the ranks that fail alike say so once."""

    def run() -> int | None:
        try:
            main()
        except UserError as error:
            if _first_to_say(str(error)):
                raise
            return USER_ERROR
        return None

    code = run_command(program, run)
    sys.stdout.flush()
    return code


def _first_to_say(message: str) -> bool:
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return True
    key = "dmoe/said/" + hashlib.sha256(message.encode()).hexdigest()[:16]
    with contextlib.suppress(RuntimeError):
        return dist.distributed_c10d._get_default_store().add(key, 1) == 1
    return True
