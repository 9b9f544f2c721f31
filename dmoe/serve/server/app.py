"""The application: routes of KServe's v2 protocol, /score and /metrics. Every answer names the version of the model that computed it."""

import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pyarrow as pa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dmoe.serve.ab.unit import REQUEST_ID, request_id
from dmoe.serve.score_dataset import probabilities
from dmoe.serve.server import bodies, kserve
from dmoe.serve.server.answers import Handler, Refused, guarded, headers_of
from dmoe.serve.server.arms import Chosen
from dmoe.serve.server.arrow_body import arrow_rows
from dmoe.serve.server.options import ServeOptions, from_environment
from dmoe.serve.server.state import Server
from dmoe.serve.server.versions import Version
from dmoe.version import __version__

ARROW = "application/vnd.apache.arrow.stream"
EXTENSIONS = ["binary_tensor_data"]


def routes(server: Server) -> list[Route]:
    """All routes; first those that are asked most, because they are tried in order."""
    return [*_scoring(server), *_about(server)]


def _route(server: Server, path: str, handler: Handler, method: str = "GET", is_probe: bool = False) -> Route:
    answer = guarded(path, handler, server.metrics, server.options.token, server.bodies.release, is_probe)
    return Route(path, answer, methods=[method])


def _model_paths(suffix: str = "") -> tuple[str, str]:
    return f"/v2/models/{{model}}{suffix}", f"/v2/models/{{model}}/versions/{{version}}{suffix}"


def _check_model(server: Server, request: Request) -> Version:
    """The version of the control.

    Raises:
        Refused: the path names another model, or a version that does not answer.
    """
    names, own = server.arms.answering, server.options.name
    if request.path_params["model"] != own:
        raise Refused(404, f"no model {request.path_params['model'][:80]}, this server has {own}")
    if request.path_params.get("version", names[0]) not in names:
        raise Refused(404, f"version {request.path_params['version'][:80]} does not answer now, {', '.join(names)} does")
    return server.versions.current


def _scoring(server: Server) -> list[Route]:
    options = server.options

    def answered(request: Request, chosen: Chosen, score_B: np.ndarray, rows: Any, id: str | None = None) -> dict[str, Any]:
        """Counts and logs an answer; returns its fields besides the scores, which are also sent as headers."""
        version = chosen.version.name
        server.metrics.answered(score_B)
        request.state.told = {"rows": len(score_B), "version": version} | ({} if chosen.arm is None else {"arm": chosen.arm})
        if server.exposer is None or chosen.arm is None:
            return {"version": version}
        named = request_id(request.headers.get(REQUEST_ID) or id)
        server.exposer.add(chosen, named, score_B, rows)
        return {"version": version, "arm": chosen.arm or None, "request_id": named}

    async def score(request: Request) -> Response:
        deadline = server.deadline()
        body, arrow = await server.bodies.read(request), request.headers.get("content-type", "").split(";")[0] == ARROW
        if arrow:
            raw, fields = await bodies.parsed(arrow_rows, body, options.rows, options.body_mib << 20), {}
        else:
            raw, fields = await bodies.parsed(bodies.json_rows, body)
        chosen = server.arms.choose(lambda name: bodies.values_of(raw, name), request.headers, fields)
        rows = await server.encoded(chosen.version, raw)
        score_B = probabilities(await server.scores(chosen, rows, deadline)).astype(np.float32)
        told = answered(request, chosen, score_B, raw)
        if not arrow:
            return JSONResponse({"model": options.name, **told, "probabilities": score_B.tolist()}, headers=headers_of(told))
        sink = pa.BufferOutputStream()
        table = pa.table({"probability": score_B})
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Response(sink.getvalue().to_pybytes(), headers=headers_of(told) | {"content-type": ARROW})

    async def infer(request: Request) -> Response:
        deadline, _ = server.deadline(), _check_model(server, request)
        asked = await bodies.parsed(kserve.Request, await server.bodies.read(request), request.headers.get(kserve.HEADER_LENGTH))
        chosen = server.arms.choose(asked.values, request.headers, asked.fields)
        version = chosen.version
        if request.path_params.get("version", version.name) != version.name:
            raise Refused(404, f"version {request.path_params['version'][:80]} does not answer this request, {version.name} does")
        # A model may read a raw column of that name.
        if (ids := kserve.IDS in asked.tensors and kserve.IDS not in version.columns) and not server.arms.same_ids:
            raise Refused(400, "the scorers of the A/B test are of different data sets, whose ids differ: send raw columns")
        also = [name for name in server.arms.shadow_columns if name in asked.tensors]
        raw = None if ids else asked.columns(list(dict.fromkeys((*version.columns, *also))))
        rows = bodies.ids_of(asked, version) if raw is None else await server.encoded(version, raw)
        logit_B = await server.scores(chosen, rows, deadline)
        score_B = probabilities(logit_B).astype(np.float32)
        told = answered(request, chosen, score_B, rows if raw is None else raw, asked.id)
        parameters = {name: value for name, value in told.items() if name != "version" and value is not None}
        content, headers = kserve.response(options.name, version.name, asked, {"probability": score_B, "logit": logit_B}, parameters)
        return Response(content, headers=headers | headers_of(told))

    return [_route(server, "/score", score, "POST"), *(_route(server, path, infer, "POST") for path in _model_paths("/infer"))]


def _about(server: Server) -> list[Route]:
    options = server.options

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        # A server that drains takes no requests, of probes neither.
        return JSONResponse({"ready": True})

    async def about_server(request: Request) -> Response:
        return JSONResponse({"name": "dmoe", "version": __version__, "extensions": EXTENSIONS})

    async def model_ready(request: Request) -> Response:
        return JSONResponse({"name": options.name, "ready": True, "version": _check_model(server, request).name})

    async def about_model(request: Request) -> Response:
        version = _check_model(server, request)
        about = version.scorer.about
        raw = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in version.columns]
        ids = [
            {"name": kserve.DENSE, "datatype": "FP32", "shape": [-1, len(about.dense)]},
            {"name": kserve.IDS, "datatype": "INT64", "shape": [-1, len(about.features)]},
        ]
        tree = {"name": options.name, "versions": server.arms.answering, "platform": "dmoe", "inputs": raw or ids}
        return JSONResponse(tree | {"outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in kserve.OUTPUTS]})

    async def metrics(request: Request) -> Response:
        server.metrics.waiting.set(server.waiting_rows)
        return Response(server.metrics.text(), headers={"content-type": "text/plain; version=0.0.4"})

    return [
        _route(server, "/v2/health/live", live, is_probe=True),
        _route(server, "/v2/health/ready", ready, is_probe=True),
        _route(server, "/v2", about_server),
        *(_route(server, path, model_ready) for path in _model_paths("/ready")),
        *(_route(server, path, about_model) for path in _model_paths()),
        _route(server, "/metrics", metrics),
    ]


def create(options: ServeOptions) -> Starlette:
    """Creates the application, and loads its models.

    Raises:
        UserError: the split or a model is wrong.
    """
    server = Server(options)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server.arms.follow()
        yield
        await server.close()

    app = Starlette(routes=routes(server), lifespan=lifespan)
    app.state.server = server
    return app


def worker() -> Starlette:
    """Creates the application of a process that does nothing else, with the options in its environment."""
    app = create(from_environment())
    spare_collector()
    return app


def spare_collector() -> None:
    """Exempts all objects that this process has now from garbage collection, which looks at some 440,000 of the libraries' and stops every
    request for .2 to .3 s. Versions that are replaced are freed all the same: they have no cycles."""
    gc.collect()
    gc.freeze()
