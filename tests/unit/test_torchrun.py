"""The agent's end where the meeting place is gone; tests/endtoend/test_netns.py cuts a real host off."""

import contextlib
import socket

import pytest
import torch.distributed as dist
from torch.distributed.elastic.rendezvous import RendezvousConnectionError
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler

from dmoe.processes.meeting import Meeting, limit_silence


class Unreachable:
    """A backend whose store does not answer."""

    name = "none"

    def get_state(self):
        raise RendezvousConnectionError("the connection has failed")

    set_state = get_state


def test_an_agent_goes_on_with_its_ranks_where_the_meeting_place_is_gone():
    place = ("a job", dist.HashStore(), Unreachable(), 2, 2, "127.0.0.1")
    with pytest.raises(RendezvousConnectionError):
        DynamicRendezvousHandler.from_backend(*place).num_nodes_waiting()
    meeting = Meeting.from_backend(*place)
    assert [meeting.num_nodes_waiting() for _ in range(3)] == [0, 0, 0]


def test_only_connections_to_the_port_end_after_a_silence():
    with contextlib.ExitStack() as opened:
        servers = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        limited, untouched = (opened.enter_context(socket.create_connection(server.getsockname())) for server in servers)
        assert limit_silence(servers[0].getsockname()[1], 7) == 1
        assert limited.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        assert limited.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 3
        assert untouched.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        limited.sendall(b"still open")
