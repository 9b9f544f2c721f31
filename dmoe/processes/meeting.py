"""torchrun's agent as `dmoe.torchrun` starts it: it ends with its ranks also where the network has lost the host of its meeting place.

torchrun's agent asks the meeting place's store several times a second, and an answer that never comes is waited for as long as TCP sends
again (torch 2.13: `TCPStore::get` for the read time-out, then for a quarter of an hour and more). Meanwhile it neither sees that its ranks
have ended nor ends. Here the connection ends after some seconds of silence, and the agent then goes on with its ranks alone: they watch
each other by `run.timeout_seconds`.
"""

import contextlib
import datetime
import logging
import os
import signal
import socket
import stat
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.rendezvous import (
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import create_backend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, RendezvousTimeout

BACKEND = "dmoe"
"""As torchrun's c10d, for --rdzv-backend."""
SILENCE_SECONDS = 30


class Meeting(DynamicRendezvousHandler):
    """Says that nobody waits to join where the meeting place does not answer any more."""

    met = False
    """Whether the nodes have met, so that the ranks run, which speak for themselves."""
    _gone = False

    def next_rendezvous(self) -> RendezvousInfo:
        info = super().next_rendezvous()
        Meeting.met = True
        return info

    def get_backend(self) -> str:
        return BACKEND

    def num_nodes_waiting(self) -> int:
        if self._gone:
            return 0
        try:
            return super().num_nodes_waiting()
        except RendezvousConnectionError:
            self._gone = True
            # Each would warn every five seconds.
            self._stop_heartbeats()
            return 0


def meet(parameters: RendezvousParameters) -> RendezvousHandler:
    """As torchrun's own handler of the c10d backend, with an end to the silence."""
    backend, store = create_backend(parameters)
    if (port := getattr(store, "port", None)) is not None:
        limit_silence(port, SILENCE_SECONDS)
    join = parameters.get_as_int("join_timeout") or 600
    return Meeting.from_backend(
        parameters.run_id,
        store,
        backend,
        parameters.min_nodes,
        parameters.max_nodes,
        parameters.local_addr,
        RendezvousTimeout(join=datetime.timedelta(seconds=join)),
    )


def limit_silence(port: int, seconds: float) -> int:
    """Lets this process's connections to a port end where what was sent is not acknowledged for so long.

    Returns:
        how many connections there are.
    """
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            # A copy of the descriptor, closed by itself; the options are the connection's.
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getpeername()[1] == port:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
                    # Where all was acknowledged and only an answer is missing, probes are what goes unacknowledged.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(seconds / 2)))
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(seconds / 4)))
                    found += 1
    return found


def launch() -> int | None:
    """Runs torchrun's command line; a signal that ends it gives the shell's exit code (128 + number), and no traceback.

    Raises:
        KeyboardInterrupt: Ctrl-C before there were ranks.
    """
    rendezvous_handler_registry.register(BACKEND, meet)
    for name in ("agent.server.api", "multiprocessing.api"):
        # The agent tells of each signal that it gets and passes on; who sent it knows.
        logging.getLogger(f"torch.distributed.elastic.{name}").addFilter(lambda record: " signal" not in str(record.msg))
    try:
        run.main()
    except SignalException as stop:
        _pass_on(stop.sigval)
        if stop.sigval == signal.SIGINT and not Meeting.met:
            raise KeyboardInterrupt from None
        return 128 + stop.sigval
    return None


def _pass_on(number: int) -> None:
    """Sends a signal to the ranks that are still running. The agent sends none to ranks that it is just starting."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            for pid in Path(f"/proc/self/task/{thread}/children").read_text().split():
                os.kill(int(pid), number)
