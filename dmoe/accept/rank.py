"""A rank of an acceptance: joins its group, then calls what it is told to, until its supervisor ends."""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

PARENT_GONE = 1


def serve(environment: Mapping[str, str], joins: bool, prepare: str, log: str, seconds: int, connection: Connection) -> None:
    """Main of a rank's process. Each job is (name of a function, arguments); its answer is (`ok`, value) or (`raised`, text).

    Args:
        environment: RANK, WORLD_SIZE and the like, laid over the process's.
        joins: joins the process group before anything else; else the jobs do.
        prepare: a function of a module to call first, `module:function`; empty for none.
        log: file that gets what this process prints.
        seconds: the group's time-out.
    """
    from dmoe.orphans import end_with

    end_with(os.getppid(), PARENT_GONE)
    os.environ.update(environment)
    # What libraries print belongs to no report.
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        _begin(joins, prepare, seconds)
        connection.send(("ok", None))
    except BaseException as error:
        connection.send(("raised", told(error)))
        return
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = "ok", named(name)(*arguments)
        except SystemExit as ended:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        except BaseException as error:
            answer = "raised", told(error)
        with contextlib.suppress(OSError):
            connection.send(answer)


def _begin(joins: bool, prepare: str, seconds: int) -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if prepare:
        named(prepare)()
    if joins:
        from dmoe import distributed

        distributed.start(seconds)


def named(name: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def is_there(folder: str) -> bool:
    """Whether this rank's host sees a folder."""
    return os.path.isdir(folder)


def told(error: BaseException) -> str:
    """Kind and message of an error, and where it was raised: the last places of its traceback, functions only."""
    places = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first} (at {' > '.join(places)})"
