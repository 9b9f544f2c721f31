"""Rows and clicks of each day of a log, for the label rate by day."""

import os
from collections import Counter

import numpy as np

from dmoe.data.log.encode import LABEL, TIME
from dmoe.data.log.parts import Part, read_columns
from dmoe.data.log.schema import Schema
from dmoe.data.log.source import File
from dmoe.data.log.times import SECONDS_A_DAY

MOST_DAYS = 3_660
"""A log of more days than ten years have has no times of day in its time column."""


def days_of(parts: list[Part], files: list[File], schema: Schema) -> list[dict[str, object]]:
    """(name, rows, positives) of each day in order: by the time column where it has dates, else each input file is one."""
    rows: Counter[int] = Counter()
    positives: Counter[int] = Counter()
    if schema.time and schema.time.format:
        for part in parts:
            batch = read_columns(part, [LABEL, TIME])
            day_N = np.floor(batch.column(TIME).to_numpy() / SECONDS_A_DAY).astype(np.int64)
            days, place_N = np.unique(day_N, return_inverse=True)
            rows.update(dict(zip(days.tolist(), np.bincount(place_N, minlength=len(days)).tolist(), strict=True)))
            clicks = np.bincount(place_N, weights=batch.column(LABEL).to_numpy(), minlength=len(days)).astype(np.int64)
            positives.update(dict(zip(days.tolist(), clicks.tolist(), strict=True)))
            if len(rows) > MOST_DAYS:
                break
        else:
            return [{"name": str(np.datetime64(day, "D")), "rows": rows[day], "positives": positives[day]} for day in sorted(rows)]
    rows.clear()
    positives.clear()
    for part in parts:
        rows[part.input] += part.rows
        positives[part.input] += int(read_columns(part, [LABEL]).column(LABEL).to_numpy().sum(dtype=np.int64))
    return [{"name": os.path.basename(one.path), "rows": rows[number], "positives": positives[number]} for number, one in enumerate(files)]
