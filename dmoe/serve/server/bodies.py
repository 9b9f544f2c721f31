"""Reads the body of a request within limits, and parses it: raw rows as JSON or Arrow, or ids."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from starlette.requests import Request

from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.names import whole_number
from dmoe.serve.encoding.row_encoder import EncodedRows
from dmoe.serve.server import kserve
from dmoe.serve.server.answers import RETRY_SECONDS, Refused
from dmoe.serve.server.versions import Version

SMALL_BODY = 64 << 10
"""Bodies up to this size are always read, and parsed without a thread."""
LARGE_BODIES = 4
"""Bytes of larger bodies that are held at once, in units of the largest body: parsed, JSON takes some ten times its size."""


class Bodies:
    """Reads the bodies of requests.

    Args:
        mib: size of the largest body.
        seconds: longest time until a body has arrived.

    Attributes:
        held: bytes of bodies above SMALL_BODY that are held, without the first SMALL_BODY of each.
    """

    def __init__(self, mib: int, seconds: float) -> None:
        self.mib, self.seconds, self.held = mib, seconds, 0

    async def read(self, request: Request) -> bytes:
        """Reads the body of a request. It counts as held until `release`.

        Raises:
            Refused: the body is too large or arrives too slowly, or too many bytes of others are held.
        """
        self._check_size(whole_number(request.headers.get("content-length", "0")) or 0)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.seconds):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    self._check_size(size)
                    if size > SMALL_BODY:
                        self._hold(request, size - max(size - len(part), SMALL_BODY))
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {self.seconds:g} s", {"Connection": "close"}) from None
        return b"".join(parts)

    def release(self, request: Request) -> None:
        """The body of a request is no longer held."""
        self.held -= getattr(request.state, "held", 0)

    def _hold(self, request: Request, more: int) -> None:
        if self.held + more > LARGE_BODIES * self.mib << 20:
            raise Refused(503, "too many large bodies are held", {"Retry-After": RETRY_SECONDS, "Connection": "close"})
        self.held += more
        request.state.held = getattr(request.state, "held", 0) + more

    def _check_size(self, size: int) -> None:
        if size > self.mib << 20:
            raise Refused(413, f"the body is larger than {self.mib} MiB", {"Connection": "close"})


async def parsed(parse: Callable[..., Any], body: bytes, *arguments: Any) -> Any:
    """The result of `parse`, on a thread for a large body: the other requests are answered meanwhile."""
    return parse(body, *arguments) if len(body) <= SMALL_BODY else await asyncio.to_thread(parse, body, *arguments)


def json_rows(body: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Parses `{"rows": [...]}`, a list of rows, or one row. Returns the rows, and the fields of the object with `rows`."""
    try:
        tree = parse_json(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the request is not JSON ({str(error)[:200]})") from None
    fields: dict[str, Any] = {}
    if isinstance(tree, dict):
        if isinstance(tree.get("rows"), list):
            fields, tree = tree, tree["rows"]
        else:
            tree = [tree]
    if not isinstance(tree, list) or any(not isinstance(row, dict) for row in tree):
        raise UserError('expected rows: {"rows": [{"column": value, ...}, ...]}')
    return tree, fields


def values_of(rows: Any, name: str) -> list[Any]:
    """The values of a column of raw rows (distinct ones for a table); empty if a table has no such column."""
    if isinstance(rows, pa.Table):
        if name not in rows.column_names:
            return []
        kind = rows[name].type
        plain = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
        return list((rows[name].unique() if plain else rows[name]).to_pylist())
    return [row.get(name) for row in rows]


def ids_of(asked: kserve.Request, version: Version) -> EncodedRows:
    """The rows of a request with tensors of ids."""
    about = version.scorer.about
    if any(feature.pooling != "none" for feature in about.features):
        raise UserError("the model has multi-valued features, which a tensor of ids cannot hold: send raw columns")
    ids = asked.tensors[kserve.IDS]
    dense = asked.tensors.get(kserve.DENSE, np.zeros((len(ids), 0), np.float32))
    for name, tensor, width in ((kserve.IDS, ids, len(about.features)), (kserve.DENSE, dense, len(about.dense))):
        if isinstance(tensor, list) or tensor.ndim != 2 or tensor.shape != (len(ids), width):
            raise UserError(f"tensor '{name}': expected numbers of shape [rows, {width}]")
    if ids.dtype.kind not in "iu":
        raise UserError(f"tensor '{kserve.IDS}': expected whole numbers")
    return EncodedRows(dense.astype(np.float32), ids.astype(np.int64), {})
