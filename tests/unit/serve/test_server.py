"""The server, asked by tritonclient and by plain HTTP: its answers are the scorer's, and every wrong request gets a clear 4xx."""

import asyncio
import contextlib
import http.client
import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dmoe.cli.serve import bound
from dmoe.errors import UserError
from dmoe.serve.encoding.row_encoder import EncodedRows
from dmoe.serve.scorer import Scorer
from dmoe.serve.server import kserve
from dmoe.serve.server.batcher import Batcher
from dmoe.serve.server.metrics import forget_dead
from dmoe.serve.server.options import ServeOptions
from dmoe.serve.server.versions import Version
from tests.waiting import wait_for

triton = pytest.importorskip("tritonclient.http")
uvicorn = pytest.importorskip("uvicorn")
ROWS = [{"site": f"s{n % 9}", "user": f"u{n}", "price": n / 3, "tags": ["t1", f"t{n % 5}"][: n % 3]} for n in range(40)]


@contextlib.contextmanager
def served(model: str, limit_concurrency: int | None = None, deadline_ms: int = 60_000, **options: Any) -> Iterator[tuple[str, Any]]:
    """(host:port, the application) of a server on a thread. A busy machine may be late for the deadline that `dmoe serve` has."""
    from dmoe.serve.server.app import create
    from dmoe.serve.server.protocol import BoundedProtocol

    app = create(ServeOptions(model, deadline_ms=deadline_ms, **options))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, http=BoundedProtocol, ws="none", log_level="warning", access_log=False, limit_concurrency=limit_concurrency)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    app.state.uvicorn = server
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(str(folder / "one" / "scorer")) as (found, _):
        yield found


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    return Scorer(str(folder / "one" / "scorer")).predict(ROWS)


def ask(address: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def scored(address: str, rows: list[dict[str, Any]]) -> tuple[str, list[float]]:
    status, _, body = ask(address, "/score", json.dumps({"rows": rows}).encode())
    assert status == 200, body
    tree = json.loads(body)
    return tree["version"], tree["probabilities"]


@pytest.mark.parametrize("binary", [False, True])
def test_tritonclient_gets_the_scorers_probabilities(address, expected, binary):
    client = triton.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("dmoe")
    about = client.get_model_metadata("dmoe")
    assert {one["name"] for one in about["inputs"]} == {"site", "user", "price", "tags"}
    columns = {
        "site": np.array([row["site"] for row in ROWS], object),
        "user": np.array([row["user"] for row in ROWS], object),
        "tags": np.array(["|".join(row["tags"]) for row in ROWS], object),
        "price": np.array([row["price"] for row in ROWS]),
    }
    inputs = []
    for name, values in columns.items():
        one = triton.InferInput(name, [len(ROWS)], "FP64" if name == "price" else "BYTES")
        one.set_data_from_numpy(values, binary_data=binary)
        inputs.append(one)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("logit", "probability")]
    answer = client.infer("dmoe", inputs, request_id="17", outputs=outputs)
    np.testing.assert_allclose(answer.as_numpy("probability"), expected, rtol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-answer.as_numpy("logit"))), expected, rtol=1e-5)
    assert answer.get_response()["id"] == "17"
    assert answer.get_response()["model_version"] == about["versions"][0]


def test_a_raw_column_may_have_the_name_of_the_tensor_of_ids(address, expected, monkeypatch):
    monkeypatch.setattr(kserve, "IDS", "site")
    columns = {name: [row[name] for row in ROWS] for name in ("site", "user")} | {"tags": ["|".join(row["tags"]) for row in ROWS]}
    inputs = [{"name": name, "datatype": "BYTES", "shape": [len(ROWS)], "data": values} for name, values in columns.items()]
    inputs.append({"name": "price", "datatype": "FP64", "shape": [len(ROWS)], "data": [row["price"] for row in ROWS]})
    status, _, body = ask(address, "/v2/models/dmoe/infer", json.dumps({"inputs": inputs}).encode())
    assert status == 200, body
    (found,) = [one["data"] for one in json.loads(body)["outputs"] if one["name"] == "probability"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rows_of_json_and_of_arrow(address, expected):
    version, found = scored(address, ROWS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert scored(address, [])[1] == []
    table, sink = pa.Table.from_pylist(ROWS), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    kind = "application/vnd.apache.arrow.stream"
    status, headers, body = ask(address, "/score", sink.getvalue().to_pybytes(), {"content-type": kind})
    assert (status, headers["x-model-version"], headers["content-type"]) == (200, version, kind)
    np.testing.assert_allclose(pa.ipc.open_stream(body).read_all()["probability"].to_numpy(), expected, rtol=1e-5)


def test_requests_that_wait_are_scored_together_each_with_its_own_answer(folder, expected):
    with served(str(folder / "one" / "scorer"), batch_us=500_000) as (address, app), ThreadPoolExecutor(20) as pool:
        asked = [slice(n, n + 1 + n % 3) for n in range(len(ROWS))]
        found = list(pool.map(lambda some: scored(address, ROWS[some])[1], asked))
        for some_rows, one in zip(asked, found, strict=True):
            np.testing.assert_allclose(one, expected[some_rows], rtol=1e-4)
        values = {s.name: s.value for m in app.state.server.metrics.registry.collect() for s in m.samples if not s.labels}
        assert values["dmoe_batch_requests_sum"] == len(asked)
        assert values["dmoe_batch_requests_count"] < len(asked) / 2
        assert values["dmoe_rows_total"] == sum(len(one) for one in found)
        # Three features of one value each, and as many tags as there are, a missing one for a row without.
        tags = sum(max(len(row["tags"]), 1) for some_rows in asked for row in ROWS[some_rows])
        assert values["dmoe_values_total"] == 3 * values["dmoe_rows_total"] + tags


def test_one_requests_bad_rows_do_not_fail_the_others():
    """A scorer that refuses a number as `Scorer` refuses one whose logit is not finite: for the whole batch."""

    def logits(dense_BI: np.ndarray, ids_BF: np.ndarray, bags: Any) -> np.ndarray:
        if (dense_BI > 100).any():
            raise UserError("too large")
        return dense_BI[:, 0]

    version = Version("1", "", SimpleNamespace(logits=logits))  # type: ignore[arg-type]
    batches: list[int] = []

    async def ask_all() -> list[Any]:
        batcher = Batcher(100, 0.05, 1000, lambda rows, requests: batches.append(requests))
        rows = [EncodedRows(np.full((2, 1), value, np.float32), np.zeros((2, 1), np.int32), {}) for value in (1, 2, 1000, 3)]
        return await asyncio.gather(*(batcher.score(version, one, time.monotonic() + 60) for one in rows), return_exceptions=True)

    one, two, refused, three = asyncio.run(ask_all())
    assert isinstance(refused, UserError)
    assert [found.tolist() for found in (one, two, three)] == [[1, 1], [2, 2], [3, 3]]
    assert batches == [1, 1, 1], "each of the others was scored, alone, after the batch had failed"


TENSOR = {"name": "site", "datatype": "BYTES", "shape": [1], "data": ["s1"]}
IDS = {"name": "ids", "datatype": "INT64", "shape": [1, 4], "data": [1, 2, 3, 4]}
WRONG: list[tuple[str, Any, int, str]] = [
    ("/score", b"{", 400, "not JSON"),
    ("/score", b"[1]", 400, "expected rows"),
    ("/score", {"rows": 3}, 400, "'price'"),
    ("/score", {"instances": [{"site": "s1"}]}, 400, "'price'"),
    ("/score", {"rows": [{"price": "cheap"}]}, 400, "row 0: price is 'cheap'"),
    ("/score", {"rows": [{"price": [1, {"a": 1}]}]}, 400, "'price' is a dict"),
    ("/score", b"[" * 100_000, 400, "not JSON"),
    ("/v2/models/other/infer", {"inputs": [TENSOR]}, 404, "no model other"),
    ("/v2/models/dmoe/versions/1/infer", {"inputs": [TENSOR]}, 404, "version 1"),
    ("/v2/models/dmoe/infer", {}, 400, "`inputs`"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR]}, 400, "no tensor 'price'"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR, TENSOR]}, 400, "twice"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR | {"shape": [2]}]}, 400, "1 values, its shape asks for 2"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR | {"shape": [10**12, 10**12]}]}, 400, "shape"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR | {"datatype": "FP8"}]}, 400, "FP8"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR | {"datatype": ["FP32"]}]}, 400, "datatype"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR | {"name": "price", "datatype": "INT64", "data": [1.5]}]}, 400, "no INT64"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR | {"name": "price", "datatype": "FP32", "data": ["1.5"]}]}, 400, "no FP32"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR], "outputs": [{"name": "logit"}] * 2}, 400, "twice"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR | {"parameters": {"binary_data_size": 99}}]}, 400, "binary_data_size"),
    ("/v2/models/dmoe/infer", {"inputs": [TENSOR], "outputs": [{"name": "odds"}]}, 400, "outputs"),
    (
        "/v2/models/dmoe/infer",
        {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1, 4], "data": [1, 2, 3, 4]}]},
        400,
        "multi-valued",
    ),
]


@pytest.mark.parametrize(("path", "body", "status", "named"), WRONG)
def test_a_wrong_request_gets_its_reason(address, expected, path, body, status, named):
    found, _, answer = ask(address, path, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert found == status
    assert named in json.loads(answer)["error"]
    np.testing.assert_allclose(scored(address, ROWS[:1])[1], expected[:1], rtol=1e-4)


def test_a_token_is_asked_for_but_for_health(folder):
    with served(str(folder / "one" / "scorer"), token="secret") as (address, _):
        assert ask(address, "/v2/health/ready")[0] == 200
        for headers in ({}, {"Authorization": "Bearer secre"}, {"Authorization": "secret"}, {"Authorization": "Bearer sécret"}):
            with contextlib.suppress(UnicodeEncodeError):
                assert ask(address, "/metrics", headers=headers)[0] == 401
        assert ask(address, "/metrics", headers={"Authorization": "Bearer secret"})[0] == 200


def test_limits_of_body_rows_and_time(folder):
    with served(str(folder / "one" / "scorer"), body_mib=1, rows=3, deadline_ms=1, batch_us=50_000) as (address, _):
        # By what it announces: a server that has answered closes, whatever a client still sends.
        assert ask(address, "/score", b"[]", {"Content-Length": str((1 << 20) + 1)})[0] == 413
        assert ask(address, "/score", json.dumps(ROWS[:4]).encode())[0] == 413
        assert ask(address, "/score", json.dumps(ROWS[:1]).encode())[0] == 504
    with served(str(folder / "one" / "scorer"), read_seconds=0.3) as (address, _):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as slow:
            slow.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[")
            assert slow.recv(1000).split()[1] == b"408"


def test_large_bodies_are_bounded_together_and_small_ones_pass(folder):
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 20)
    with served(str(folder / "one" / "scorer"), body_mib=1) as (address, app), contextlib.ExitStack() as stack:
        host, port = address.split(":")
        slow = [stack.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in range(5)]
        for one in slow:
            one.sendall(head + b" " * 1_000_000)
        ready, _, _ = select.select(slow, [], [], 10)
        assert [one.recv(1000).split()[1] for one in ready] == [b"503"]
        assert len(scored(address, ROWS[:1])[1]) == 1
        stack.close()
        ends = time.monotonic() + 10
        while app.state.server.bodies.held:
            assert time.monotonic() < ends
            time.sleep(0.01)


def test_a_body_that_is_announced_too_large_is_refused_at_once(folder):
    with served(str(folder / "one" / "scorer"), body_mib=1, read_seconds=60) as (address, _):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
            assert client.recv(1000).split()[1] == b"413"


def test_a_port_in_use_is_told_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match=str(taken.getsockname()[1])):
        bound("127.0.0.1", taken.getsockname()[1])


def test_a_full_queue_says_when_to_come_back(folder):
    with served(str(folder / "one" / "scorer"), queue_rows=2, batch_us=1_500_000) as (address, _), ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda n: ask(address, "/score", json.dumps(ROWS[n : n + 1]).encode()), range(10)))
        statuses = [status for status, _, _ in found]
        assert {200, 503} == set(statuses)
        assert all("retry-after" in headers for status, headers, _ in found if status == 503)


def test_gauges_of_dead_processes_are_forgotten(tmp_path):
    gone, here = tmp_path / "gauge_livemax_999999999.db", tmp_path / f"gauge_livemax_{os.getpid()}.db"
    for path in (gone, here):
        path.touch()
    forget_dead(str(tmp_path))
    assert [path.exists() for path in (gone, here)] == [False, True]


KEYS = ["inputs", "name", "datatype", "shape", "data", "parameters", "binary_data_size", "outputs"]
LEAVES = some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8)
TREES = some.recursive(LEAVES, lambda one: some.lists(one, max_size=4) | some.dictionaries(some.sampled_from(KEYS), one, max_size=5))


@settings(max_examples=300, deadline=None)
@given(some.binary(max_size=200) | TREES.map(lambda tree: json.dumps(tree).encode()), some.none() | some.integers(-5, 300).map(str))
def test_any_bytes_are_a_request_or_refused(body, header):
    with contextlib.suppress(UserError):
        kserve.Request(body, header).columns(["site"])


def test_an_answer_is_sent_without_waiting_for_acknowledgements():
    async def no_delay() -> int:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[int] = loop.create_future()

        class Connection(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                found.set_result(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        listening = bound("127.0.0.1", 0)
        async with await loop.create_server(Connection, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            async with asyncio.timeout(60):
                told = await found
            writer.close()
        return told

    assert asyncio.run(no_delay())


def test_a_request_on_its_way_while_the_server_ends_is_answered(folder, monkeypatch):
    from dmoe.serve.server import protocol

    monkeypatch.setattr(protocol, "LAST_SECONDS", 3600.0)
    body = json.dumps({"rows": ROWS[:1]})
    with served(str(folder / "one" / "scorer")) as (address, app), contextlib.closing(http.client.HTTPConnection(address)) as kept:
        kept.request("POST", "/score", body)
        expected = json.loads(kept.getresponse().read())
        listening = app.state.uvicorn.servers[0]
        app.state.uvicorn.should_exit = True
        wait_for(lambda: not listening.is_serving())
        kept.request("POST", "/score", body)
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("connection"), json.loads(answer.read())) == (200, "close", expected)
