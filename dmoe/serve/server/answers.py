"""From handlers to HTTP: refusals and errors become answers, and every answer is counted and logged."""

import hmac
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from dmoe.errors import UserError
from dmoe.serve.ab.unit import NoUnit
from dmoe.serve.server.arrow_body import TooLarge
from dmoe.serve.server.metrics import Metrics
from dmoe.terminal import Level, json_line

Handler = Callable[[Request], Awaitable[Response]]
RETRY_SECONDS = "1"


class Refused(Exception):
    """A refused request, with the HTTP status and headers of its answer."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


def guarded(path: str, handler: Handler, metrics: Metrics, token: str, release: Callable[[Request], None], is_probe: bool) -> Handler:
    """Wraps a handler: checks the token, turns errors into answers, writes the log line and updates the metrics.

    Args:
        path: the route, for the log and the metrics.
        token: bearer token that requests must send; empty for none.
        release: called when the body of a request is no longer needed.
        is_probe: whether the route needs no token and is not logged.
    """

    async def answer(request: Request) -> Response:
        began = time.perf_counter()
        try:
            given = request.headers.get("authorization", "").encode()
            if token and not is_probe and not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise Refused(401, "no valid token", {"WWW-Authenticate": "Bearer"})
            response = await handler(request)
        except Refused as error:
            response = JSONResponse({"error": str(error)}, error.status, error.headers)
        except UserError as error:
            response = JSONResponse({"error": str(error)}, _status(error))
        except ClientDisconnect:
            response = JSONResponse({"error": "the client went away"}, 499)
        finally:
            release(request)
        seconds = time.perf_counter() - began
        code = response.status_code
        metrics.requests.labels(path, str(code)).inc()
        if not is_probe and path != "/metrics":
            metrics.seconds.observe(seconds)
            told = {"path": path, "status": code, "ms": round(1000 * seconds, 3), **getattr(request.state, "told", {})}
            log(f"{path} {code}", "request", "error" if code >= 500 else "info", **told)
        return response

    return answer


def _status(error: UserError) -> int:
    return 422 if isinstance(error, NoUnit) else 413 if isinstance(error, TooLarge) else 400


def headers_of(told: dict[str, Any]) -> dict[str, str]:
    """The headers that name version, arm and request id of an answer; those that are None are left out."""
    names = {"version": "X-Model-Version", "arm": "X-Arm", "request_id": "X-Request-Id"}
    return {names[name]: value for name, value in told.items() if value is not None}


def log(message: str, event: str, level: Level = "info", **told: Any) -> None:
    """Writes a line of JSON to stderr."""
    # One write for each line: print makes two, and the line of another worker could come between them.
    sys.stderr.write(json_line(message, level, event, pid=os.getpid(), **told))
    sys.stderr.flush()
