"""Routes and limits of the server. Every answer names the version of the model that computed it."""

import asyncio
import contextlib
import hmac
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.errors import UserError
from dmoe.names import whole_number
from dmoe.serve.encoding.row_encoder import EncodedRows
from dmoe.serve.score_dataset import probabilities
from dmoe.serve.server import bodies, kserve
from dmoe.serve.server.arms import REQUEST_ID, Arms, Chosen, NoUnit, request_id
from dmoe.serve.server.arrow_body import TooLarge, arrow_rows
from dmoe.serve.server.batcher import QueueFull, TooLate
from dmoe.serve.server.metrics import Metrics
from dmoe.serve.server.options import ServeOptions, from_environment
from dmoe.serve.server.versions import Version
from dmoe.terminal import Level, json_line
from dmoe.version import __version__

ARROW = "application/vnd.apache.arrow.stream"
EXTENSIONS = ["binary_tensor_data"]
RETRY_SECONDS = "1"
FEW_ROWS = 8
SMALL_BODY = 64 << 10
"""Bodies up to this size are always read, and parsed without a thread."""
LARGE_BODIES = 4
"""Bytes of larger bodies that are held at once, in units of the largest body: parsed, JSON takes some ten times its size."""


class Refused(Exception):
    """A refused request, with the HTTP status and headers of its answer."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class Server:
    """State that the routes share."""

    def __init__(self, options: ServeOptions) -> None:
        torch.set_num_threads(options.threads)
        self.options, self.metrics, self.draining = options, Metrics(), False
        self._answering: dict[str, str] = {}
        self.held_bytes = 0
        self.arms = Arms(options, self.metrics, self._told, lambda problem: _log(problem, "failed", "warning"))
        self.versions, self.batcher = self.arms.control.versions, self.arms.control.batcher

    def _told(self, model: str, event: str, version: str, message: str) -> None:
        named: dict[str, Any] = {"version" if event == "loaded" else "folder": version}
        _log(message, event, "info" if event == "loaded" else "warning", **named)
        if event == "loaded":
            before = self._answering.get(model)
            self._answering[model] = version
            if before and before not in self._answering.values():
                self.metrics.version.labels(before).set(0)
            self.metrics.version.labels(version).set(1)

    async def scores(self, chosen: Chosen, rows: EncodedRows, deadline: float) -> np.ndarray:
        """The logits of encoded rows.

        Raises:
            Refused: the queue is full, the deadline has passed, or there are too many rows.
        """
        self.check_rows(len(rows))
        if not len(rows):
            return np.zeros(0, np.float32)
        try:
            logit_B = await chosen.batcher.score(chosen.version, rows, deadline)
        except QueueFull:
            message = f"{chosen.batcher.waiting_rows:,} rows wait already, and {self.options.queue_rows:,} may"
            raise Refused(503, message, {"Retry-After": RETRY_SECONDS}) from None
        except TooLate:
            raise Refused(504, f"not scored within {self.options.deadline_ms} ms") from None
        self.metrics.waiting.set(self.waiting_rows)
        return logit_B

    def check_rows(self, rows: int) -> None:
        if rows > self.options.rows:
            raise Refused(413, f"{rows:,} rows, this server takes {self.options.rows:,} at once")

    @property
    def waiting_rows(self) -> int:
        return sum(model.batcher.waiting_rows for model in self.arms.models)

    async def encoded(self, version: Version, rows: Any) -> EncodedRows:
        """Encodes raw rows, on a thread if there are many.

        Raises:
            Refused: the scorer takes only ids, or there are too many rows.
        """
        self.check_rows(len(rows))
        if not version.scorer.about.reads_raw_rows:
            raise Refused(400, "the scorer takes ids only: export it again where the training data is")
        encode = version.scorer.encoder.encode
        # For few rows, switching to a thread takes longer than encoding.
        found = encode(rows) if len(rows) <= FEW_ROWS else await asyncio.to_thread(encode, rows)
        bags = [bag.values for bag in found.bags.values()]
        # `ids_BF` has a placeholder, the missing id, for multi-valued features.
        self.metrics.values.inc(found.ids_BF.size - len(found) * len(bags) + sum(map(len, bags)))
        self.metrics.unknown.inc(sum(int((ids == RARE_ID).sum()) for ids in (found.ids_BF, *bags)))
        return found

    async def body(self, request: Request) -> bytes:
        """Reads the body of a request. It counts as held until `release`.

        Raises:
            Refused: the body is too large or arrives too slowly, or too many bytes of others are held.
        """
        most, read = self.options.body_mib << 20, self.options.read_seconds
        announced = whole_number(request.headers.get("content-length", "0")) or 0
        parts: list[bytes] = []
        size = 0
        self._check_size(announced, most)
        try:
            async with asyncio.timeout(read):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    self._check_size(size, most)
                    if size > SMALL_BODY:
                        more = size - max(size - len(part), SMALL_BODY)
                        if self.held_bytes + more > LARGE_BODIES * most:
                            raise Refused(503, "too many large bodies are held", {"Retry-After": RETRY_SECONDS, "Connection": "close"})
                        self.held_bytes += more
                        request.state.held = getattr(request.state, "held", 0) + more
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {read:g} s", {"Connection": "close"}) from None
        return b"".join(parts)

    def _check_size(self, size: int, most: int) -> None:
        if size > most:
            raise Refused(413, f"the body is larger than {self.options.body_mib} MiB", {"Connection": "close"})

    def release(self, request: Request) -> None:
        """The body of a request is no longer held."""
        self.held_bytes -= getattr(request.state, "held", 0)

    def deadline(self) -> float:
        return time.monotonic() + self.options.deadline_ms / 1000


def routes(server: Server) -> list[Route]:
    """The routes of the KServe protocol, /score and /metrics."""
    options = server.options

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": not server.draining}, 503 if server.draining else 200)

    async def about_server(request: Request) -> Response:
        return JSONResponse({"name": "dmoe", "version": __version__, "extensions": EXTENSIONS})

    def check_model(request: Request) -> Version:
        names = server.arms.answering
        if request.path_params["model"] != options.name:
            raise Refused(404, f"no model {request.path_params['model'][:80]}, this server has {options.name}")
        if request.path_params.get("version", names[0]) not in names:
            raise Refused(404, f"version {request.path_params['version'][:80]} does not answer now, {', '.join(names)} does")
        return server.versions.current

    def answered(request: Request, chosen: Chosen, score_B: np.ndarray, rows: Any, id: str | None = None) -> dict[str, Any]:
        """Counts and logs an answer; returns its fields besides the scores, which are also sent as headers."""
        version = chosen.version.name
        server.metrics.answered(score_B)
        request.state.told = {"rows": len(score_B), "version": version} | ({} if chosen.arm is None else {"arm": chosen.arm})
        if chosen.arm is None:
            return {"version": version}
        named = request_id(request.headers.get(REQUEST_ID) or id)
        server.arms.expose(chosen, named, score_B, rows)
        return {"version": version, "arm": chosen.arm or None, "request_id": named}

    async def model_ready(request: Request) -> Response:
        version = check_model(request)
        return JSONResponse({"name": options.name, "ready": True, "version": version.name})

    async def about_model(request: Request) -> Response:
        version = check_model(request)
        about = version.scorer.about
        raw = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in version.columns]
        ids = [
            {"name": kserve.DENSE, "datatype": "FP32", "shape": [-1, len(about.dense)]},
            {"name": kserve.IDS, "datatype": "INT64", "shape": [-1, len(about.features)]},
        ]
        tree = {"name": options.name, "versions": server.arms.answering, "platform": "dmoe", "inputs": raw or ids}
        return JSONResponse(tree | {"outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in kserve.OUTPUTS]})

    async def infer(request: Request) -> Response:
        deadline, _ = server.deadline(), check_model(request)
        asked = await _parsed(kserve.Request, await server.body(request), request.headers.get(kserve.HEADER_LENGTH))
        chosen = server.arms.choose(asked.values, request.headers, asked.fields)
        version = chosen.version
        if request.path_params.get("version", version.name) != version.name:
            raise Refused(404, f"version {request.path_params['version'][:80]} does not answer this request, {version.name} does")
        if (ids := kserve.IDS in asked.tensors) and not server.arms.same_ids:
            raise Refused(400, "the scorers of the A/B test are of different data sets, whose ids differ: send raw columns")
        also = [name for name in server.arms.shadow_columns if name in asked.tensors]
        raw = None if ids else asked.columns(list(dict.fromkeys((*version.columns, *also))))
        rows = bodies.ids_of(asked, version) if raw is None else await server.encoded(version, raw)
        logit_B = await server.scores(chosen, rows, deadline)
        score_B = probabilities(logit_B).astype(np.float32)
        told = answered(request, chosen, score_B, rows if raw is None else raw, asked.id)
        parameters = {name: value for name, value in told.items() if name != "version" and value is not None}
        content, headers = kserve.response(options.name, version.name, asked, {"probability": score_B, "logit": logit_B}, parameters)
        return Response(content, headers=headers | _headers(told))

    async def score(request: Request) -> Response:
        deadline = server.deadline()
        body, arrow = await server.body(request), request.headers.get("content-type", "").split(";")[0] == ARROW
        if arrow:
            raw, fields = await _parsed(arrow_rows, body, options.rows, options.body_mib << 20), {}
        else:
            raw, fields = await _parsed(bodies.json_rows, body)
        chosen = server.arms.choose(lambda name: bodies.values_of(raw, name), request.headers, fields)
        rows = await server.encoded(chosen.version, raw)
        score_B = probabilities(await server.scores(chosen, rows, deadline)).astype(np.float32)
        told = answered(request, chosen, score_B, raw)
        if not arrow:
            return JSONResponse({"model": options.name, **told, "probabilities": score_B.tolist()}, headers=_headers(told))
        sink = pa.BufferOutputStream()
        table = pa.table({"probability": score_B})
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Response(sink.getvalue().to_pybytes(), headers=_headers(told) | {"content-type": ARROW})

    async def metrics(request: Request) -> Response:
        server.metrics.waiting.set(server.waiting_rows)
        return Response(server.metrics.text(), headers={"content-type": "text/plain; version=0.0.4"})

    def route(path: str, handler: Callable[[Request], Awaitable[Response]], method: str = "GET", open_: bool = False) -> Route:
        return Route(path, _guarded(server, path, handler, open_), methods=[method])

    model = "/v2/models/{model}"
    return [
        route("/v2/health/live", live, open_=True),
        route("/v2/health/ready", ready, open_=True),
        route("/v2", about_server),
        *(route(f"{prefix}/ready", model_ready) for prefix in (model, model + "/versions/{version}")),
        *(route(f"{prefix}/infer", infer, "POST") for prefix in (model, model + "/versions/{version}")),
        *(route(prefix, about_model) for prefix in (model, model + "/versions/{version}")),
        route("/score", score, "POST"),
        route("/metrics", metrics),
    ]


def _guarded(
    server: Server, path: str, handler: Callable[[Request], Awaitable[Response]], open_: bool
) -> Callable[[Request], Awaitable[Response]]:
    """Wraps a route: checks the token, turns errors into answers, writes the log line and updates the metrics."""

    async def answer(request: Request) -> Response:
        began = time.perf_counter()
        try:
            given = request.headers.get("authorization", "").encode()
            if server.options.token and not open_ and not hmac.compare_digest(given, f"Bearer {server.options.token}".encode()):
                raise Refused(401, "no valid token", {"WWW-Authenticate": "Bearer"})
            response = await handler(request)
        except Refused as error:
            response = JSONResponse({"error": str(error)}, error.status, error.headers)
        except UserError as error:
            response = JSONResponse({"error": str(error)}, _status(error))
        except ClientDisconnect:
            response = JSONResponse({"error": "the client went away"}, 499)
        finally:
            server.release(request)
        seconds = time.perf_counter() - began
        server.metrics.requests.labels(path, str(response.status_code)).inc()
        if not open_ and path != "/metrics":
            server.metrics.seconds.observe(seconds)
            code = response.status_code
            told = {"path": path, "status": code, "ms": round(1000 * seconds, 3), **getattr(request.state, "told", {})}
            _log(f"{path} {code}", "request", "error" if code >= 500 else "info", **told)
        return response

    return answer


async def _parsed(parse: Callable[..., Any], body: bytes, *arguments: Any) -> Any:
    """The result of `parse`, on a thread for a large body: the other requests are answered meanwhile."""
    return parse(body, *arguments) if len(body) <= SMALL_BODY else await asyncio.to_thread(parse, body, *arguments)


def _status(error: UserError) -> int:
    return 422 if isinstance(error, NoUnit) else 413 if isinstance(error, TooLarge) else 400


def _headers(told: dict[str, Any]) -> dict[str, str]:
    names = {"version": "X-Model-Version", "arm": "X-Arm", "request_id": "X-Request-Id"}
    return {names[name]: value for name, value in told.items() if value is not None}


def _log(message: str, event: str, level: Level = "info", **told: Any) -> None:
    # One write for each line: print makes two, and the line of another worker could come between them.
    sys.stderr.write(json_line(message, level, event, pid=os.getpid(), **told))
    sys.stderr.flush()


def create(options: ServeOptions | None = None) -> Starlette:
    """Creates the application of one worker process.

    Raises:
        UserError: the model cannot be loaded.
    """
    server = Server(options or from_environment())

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server.arms.follow()
        yield
        server.draining = True
        await server.arms.close()

    app = Starlette(routes=routes(server), lifespan=lifespan)
    app.state.server = server
    return app
