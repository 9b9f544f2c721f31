"""A rank process of an acceptance: joins the process group, then runs the jobs that its supervisor sends."""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from dmoe.errors import first_line

PARENT_GONE = 1


def serve(environment: Mapping[str, str], joins: bool, prepare: str, log: str, seconds: int, connection: Connection) -> None:
    """Main function of a rank process. A job is (name of a function, arguments); its answer is (`ok`, value) or (`raised`, text).

    Args:
        environment: environment variables to set, such as RANK and WORLD_SIZE.
        joins: whether to join the process group at the start; otherwise a job may join it.
        prepare: `module:function` to call first; empty for none.
        log: file for the output of this process.
        seconds: time-out of the process group.
        connection: receives jobs and sends answers.
    """
    from dmoe.processes.orphans import end_with

    end_with(os.getppid(), PARENT_GONE)
    os.environ.update(environment)
    # The output of libraries does not belong in the report.
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
    """Type and message of an error, and the last functions of its traceback."""
    places = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
    return f"{type(error).__name__}: {first_line(error, 300)} (at {' > '.join(places)})"
