"""torchrun that ends with its ranks also where the network has lost its host: `python -m dmoe.torchrun`, with torchrun's own arguments.

torchrun's agent asks the meeting place's store several times a second, and an answer that never comes is waited for as long as TCP sends
again (torch 2.13: `TCPStore::get` for the read time-out, then for a quarter of an hour and more). Meanwhile it neither sees that its ranks
have ended nor ends. Here the connection ends after some seconds of silence, and the agent then goes on with its ranks alone: they watch
each other by `run.timeout_seconds`.
"""

import contextlib
import datetime
import os
import socket
import stat

from torch.distributed import run
from torch.distributed.elastic.rendezvous import (
    RendezvousConnectionError,
    RendezvousHandler,
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

    _gone = False

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


def main() -> None:
    rendezvous_handler_registry.register(BACKEND, meet)
    run.main()


if __name__ == "__main__":
    main()
