"""Exposures and clicks as tables, from tuples."""

from typing import Any

import numpy as np
import pyarrow as pa

from dmoe.report.ab.join import Joined, join_outcomes
from dmoe.report.ab.load import TIME, Test
from dmoe.serve.ab.exposures import SCHEMA

TEST = Test("t", "a", {"a": 0.5, "b": 0.5})


def exposures_of(rows: list[tuple[str, str, str, int, float]]) -> pa.Table:
    """(unit, arm, request, row, seconds)."""
    rows = sorted(rows, key=lambda row: row[4])
    unit, arm, request, number, seconds = zip(*rows, strict=True)
    columns: dict[str, Any] = {"unit": unit, "arm": arm, "request_id": request, "row": number}
    columns |= {"version": ["v"] * len(rows), "score": np.full(len(rows), 0.5, np.float32)}
    columns |= {"time": pa.array([round(1e6 * one) for one in seconds], TIME), "shadow_score": [None] * len(rows)}
    return pa.table(columns | {"shadow_version": [None] * len(rows)}).select(SCHEMA.names).cast(SCHEMA)


def clicks_of(rows: list[tuple[Any, ...]], *names: str) -> pa.Table:
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {name: [] for name in names}
    kinds = {"request_id": pa.string(), "unit": pa.string(), "row": pa.int32()}
    return pa.table(
        {
            name: pa.array([round(1e6 * one) for one in values], TIME) if name == "time" else pa.array(values, kinds[name])
            for name, values in columns.items()
        }
    )


def joined_of(rows: list[tuple[str, str, str, int, float]], clicks: pa.Table, window: float = 100, **bounds: int) -> Joined:
    return join_outcomes(exposures_of(rows), TEST, clicks, window, **bounds)
