"""Clients that are slow, send nonsense or go away: a clear 4xx, nothing that stays, and the others are answered meanwhile."""

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dmoe.serve.server import protocol
from dmoe.testing.small_scorer import small_scorer
from tests.unit.serve.test_server import ROWS, ask, scored, served
from tests.waiting import wait_for

HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_scorer(str(tmp_path_factory.mktemp("hostile")))


@pytest.fixture
def address(model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A server that waits so long for a head and a body that no sound client is too slow on a busy machine."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 60)
    with served(model, read_seconds=60, body_mib=1) as (found, app):
        host, port = found.split(":")
        yield host, int(port)
        wait_for(lambda: app.state.server.batcher.waiting_rows == 0)


def answer_of(address: tuple[str, int], *parts: bytes, pause: float = 0.0) -> bytes:
    """All that the server says until it closes."""
    found = b""
    with socket.create_connection(address, timeout=60) as client:
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            while part := client.recv(1 << 16):
                found += part
        except (TimeoutError, ConnectionError):
            pass
    return found


def alive(address: tuple[str, int]) -> None:
    assert len(scored(f"{address[0]}:{address[1]}", ROWS[:2])[1]) == 2


def test_a_head_that_comes_byte_by_byte_ends_and_holds_nobody(address, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 3)
    slow = [socket.create_connection(address, timeout=60) for _ in range(50)]
    for one in slow:
        one.sendall(b"GET /v2 HTTP/1.1\r\nX-A: ")
    alive(address)
    for one in slow:
        assert one.recv(100).split()[1] == b"408"
        one.close()
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    assert answer_of(address, b"G", b"E", b"T", pause=0.1).split()[1] == b"408"
    assert answer_of(address, b"").split()[1] == b"408", "a connection on which nothing comes"


def test_the_head_of_a_second_request_is_bounded_too(address, monkeypatch):
    body = json.dumps(ROWS[:1]).encode()
    first = HEAD % len(body) + body
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 3)
    found = answer_of(address, first, b"POST /score HTT", pause=0.3)
    assert [line.split()[1] for line in found.split(b"HTTP/1.1")[1:] for line in [b"HTTP/1.1" + line]] == [b"200", b"408"]


def test_a_head_without_an_end_is_refused_by_its_size(address):
    found = answer_of(address, b"GET /v2 HTTP/1.1\r\n", *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 200)
    assert not found or found.split()[1] == b"431", "none where the client writes on into a closed connection"
    found = answer_of(address, b"GET /v2 HTTP/1.1\r\nX-A: " + b"a" * protocol.HEAD_BYTES)
    assert found.split()[1] == b"431"
    alive(address)


def test_clients_that_go_away_leave_nothing(address):
    body = json.dumps(ROWS).encode()
    for cut in (1, 20, 70, 100, len(body)):
        for _ in range(5):
            with socket.create_connection(address, timeout=60) as client:
                client.sendall((HEAD % len(body) + body)[:cut])
    alive(address)


@pytest.mark.parametrize("read_again", [False, True])
def test_a_client_that_does_not_read_its_answer_is_cut_off(monkeypatch, read_again):
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.05)
    found, aborted = protocol.BoundedProtocol.__new__(protocol.BoundedProtocol), []

    async def wait() -> None:
        found.loop, found.transport = asyncio.get_running_loop(), SimpleNamespace(abort=lambda: aborted.append(True))
        found.flow = SimpleNamespace(pause_writing=lambda: None, resume_writing=lambda: None)
        found.pause_writing()
        if read_again:
            found.resume_writing()
        await asyncio.sleep(0.3)

    asyncio.run(wait())
    assert bool(aborted) == (not read_again)


def test_more_connections_than_are_taken_are_refused(model, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 60)
    with served(model, limit_concurrency=3) as (found, _):
        host, port = found.split(":")
        # The system hands connections on in the order in which they came.
        idle = [socket.create_connection((host, int(port)), timeout=60) for _ in range(6)]
        assert answer_of((host, int(port)), b"").split()[1] == b"503"
        for one in idle:
            one.close()
        wait_for(lambda: ask(found, "/v2/health/live")[0] == 200)
        alive((host, int(port)))


@pytest.mark.parametrize("seed", range(3))
def test_requests_of_which_bytes_were_changed(address, seed):
    """Each gets an answer below 500, or, as nonsense, none."""
    draw, whole = random.Random(seed), json.dumps({"rows": ROWS[:3]}).encode()
    statuses = set()
    for _ in range(60):
        request = bytearray(HEAD % len(whole) + whole)
        for _ in range(draw.choice((1, 3, 20))):
            place = draw.randrange(len(request))
            request[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(4))
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(bytes(request))
            client.shutdown(socket.SHUT_WR)
            try:
                found = client.recv(1 << 16)
            except (TimeoutError, ConnectionError):
                continue
        if found:
            statuses.add(int(found.split()[1]))
    assert statuses <= {200, 400, 404, 405, 408, 411, 413, 431, 501}
    assert 400 in statuses
    alive(address)


def test_bodies_of_every_size_up_to_the_limit_and_beyond(address):
    found = f"{address[0]}:{address[1]}"
    for size in (0, 1, 1000, (1 << 20) - 10, (1 << 20) + 1, 3 << 20):
        try:
            status = ask(found, "/score", b'{"rows": [{"site": "' + b"a" * size + b'"}]}')[0]
        except ConnectionError:
            status = 413
        assert status == (200 if size < (1 << 20) - 100 else 413)
