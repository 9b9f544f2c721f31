"""Parses the body of a request: raw rows as JSON or Arrow, or ids."""

from typing import Any

import numpy as np
import pyarrow as pa

from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.serve.encoding.row_encoder import EncodedRows
from dmoe.serve.server import kserve
from dmoe.serve.server.versions import Version


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
