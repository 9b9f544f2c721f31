"""Ends the process of a rank: one message for all ranks, an exit code that tells what to do next, and no hang.

| code | what happened | what to do |
| --- | --- | --- |
| 0 | the run is finished | |
| 2 | a mistake, bad data, a full disk, or the guard | correct it, then --resume |
| 3 | a rank was lost, or hung past run.timeout_seconds | start again with --resume |
| 130 | interrupted (Ctrl-C) | start again with --resume |
| 143 | asked to stop (SIGTERM), a checkpoint was written | start again with --resume; schedulers can requeue the job |
| 1 | a bug, with its traceback | report it |
"""

import atexit
import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from dmoe.errors import MENDED_BY_USERS, USER_ERROR, UserError, first_line, run_command, told_by_system
from dmoe.json_text import format_json
from dmoe.processes import alive
from dmoe.processes.orphans import end_with
from dmoe.train.elastic.fault_store import FAULT, LOST, SAID, group_store, say, say_once
from dmoe.train.elastic.watchdog import last_note

PREEMPTED = 143
GLOO = re.compile(r"\[\S*gloo/\S*\.(cc|h):\d+\]|^Application timeout caused pair closure")
GRACE_SECONDS = 3.0
"""How long a failing rank waits for rank 0 to print its message, before it prints the message itself."""
TRACKER_THREAD = "tracker "
"""The names of trackers' threads begin so. One that still runs at the end hangs in another library."""
ANSWER_SECONDS = 10.0
"""How long to wait for an answer of the store. If its host cannot be reached, a request would wait forever."""


class Preempted(Exception):
    """The run was asked to stop (SIGTERM), wrote a checkpoint, and can be started again with --resume."""


def run_rank(program: str, main: Callable[[], int | None]) -> int:
    """As `run_command`, for a program on several ranks: a failure is printed once for all ranks, by rank 0 if possible."""

    if "TORCHELASTIC_RUN_ID" in os.environ:
        # A rank that torchrun started ends with torchrun. A process that was started by hand continues (nohup).
        gone = f"{program}: the launcher (process {os.getppid()}) is gone, so that its ranks end; start again with --resume"
        end_with(os.getppid(), LOST, gone if os.environ.get("LOCAL_RANK") == "0" else "")

    def run() -> int | None:
        try:
            return main()
        except Preempted as stop:
            return _end(program, str(stop), PREEMPTED)
        except UserError as error:
            return _end(program, str(error), USER_ERROR)
        except OSError as error:
            if error.errno not in MENDED_BY_USERS:
                raise
            return _end(program, told_by_system(error), USER_ERROR)
        except RuntimeError as error:
            if not is_connection(error):
                raise
            return _end_lost(program, error)

    if os.environ.get("RANK", "0") == "0":
        alive.begin("loads PyTorch")
    code = run_command(program, run)
    alive.end()
    sys.stdout.flush()
    hung = any(one.name.startswith(TRACKER_THREAD) for one in threading.enumerate())
    if _ranks() > 1 or hung:
        # To leave the group could hang if other ranks are gone. And a thread that is inside PyTorch while the interpreter ends may abort
        # the process ("terminate called without an active exception") although the run is finished: seen once in some hundred runs.
        # A tracker's server that does not answer must not delay the end either; its library may wait for it in an exit function.
        if not code and not hung:
            atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(code)
    return code


def is_connection(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank is gone.

    NCCL and the store raise errors of their own types. gloo raises a plain RuntimeError, whose message names a line of gloo's source.
    """
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or GLOO.search(str(error)) is not None


def _end(program: str, message: str, code: int) -> int:
    """Prints the message once for all ranks: on rank 0 if it answers, else here."""
    rank = _rank()
    if not _answered(lambda store: _leave(store, program, message, code)):
        say(program, message if _ranks() == 1 else f"rank {rank}: {message}")
    return code


def _leave(store: Any, program: str, message: str, code: int) -> None:
    """Leaves the message for the other ranks. Another rank than 0 says it itself if rank 0 does not in time."""
    rank = _rank()
    if store.add(f"{FAULT}/count", 1) == 1:
        store.set(FAULT, format_json([rank, message, code]))
    if rank != 0:
        _wait(store, SAID, GRACE_SECONDS)
    say_once(store, program, message if rank == 0 else f"rank {rank}: {message}")


def _end_lost(program: str, error: RuntimeError) -> int:
    """Ends after a failed collective: another rank has failed, and may have left its message in the store or not."""
    codes: list[int] = []
    answered = _answered(lambda store: codes.extend(_code_of_fault(store, program)))
    if codes:
        return codes[0]
    message = f"lost another rank while this one {last_note()} ({first_line(error, 160)}); start again with --resume"
    if answered or _ranks() == 1:
        return _end(program, message, LOST)
    say(program, f"rank {_rank()}: {message}")
    return LOST


def _code_of_fault(store: Any, program: str) -> list[int]:
    """The exit code of the rank that left a message in the store, if one has; rank 0 prints the message for all."""
    if not _wait(store, FAULT, GRACE_SECONDS):
        return []
    who, message, code = json.loads(store.get(FAULT))
    if _rank() == 0:
        say_once(store, program, f"rank {who}: {message}")
    return [int(code)]


def _answered(talk: Callable[[Any], None]) -> bool:
    """Calls `talk` with the store in a thread; whether there is a store, and it answered everything in time."""
    done: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            if (store := group_store()) is not None:
                talk(store)
                done.append(True)

    asking = threading.Thread(target=ask, daemon=True, name="ask")
    asking.start()
    asking.join(GRACE_SECONDS + ANSWER_SECONDS)
    return bool(done)


def _wait(store: Any, key: str, seconds: float) -> bool:
    """Whether the key is in the store within this many seconds."""
    until = time.monotonic() + seconds
    while not store.check([key]):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _rank() -> int:
    import torch.distributed as dist

    return dist.get_rank() if dist.is_initialized() else 0


def _ranks() -> int:
    if "torch.distributed" not in sys.modules:
        # The command ended before it imported torch, which would take seconds.
        return 1
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else 1
