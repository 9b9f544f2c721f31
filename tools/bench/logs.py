"""Logs for `tools.bench.preprocess`: Criteo's form, Avazu's form, and one with quotes, bags and floats, as CSV and as parquet.

    python -m tools.bench.logs quoted --rows 1000000 --output quoted.csv

Token r of a feature is drawn with a probability that falls as a power of r, as in click logs; labels are noise: nothing is learned here.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tools.bench.results import ROOT, parser

KINDS = ("criteo", "avazu", "quoted", "parquet")
BLOCK_ROWS = 1 << 18
START = np.datetime64("2014-10-21T00:00:00")
AVAZU = {
    "C1": 7,
    "banner_pos": 7,
    "site_id": 4_700,
    "site_domain": 7_700,
    "site_category": 26,
    "app_id": 8_500,
    "app_domain": 560,
    "app_category": 36,
    "device_id": 2_700_000,
    "device_ip": 6_700_000,
    "device_model": 8_250,
    "device_type": 5,
    "device_conn_type": 4,
    "C14": 2_600,
    "C15": 8,
    "C16": 9,
    "C17": 435,
    "C18": 4,
    "C19": 68,
    "C20": 172,
    "C21": 60,
}
"""Avazu's columns and about how many tokens each has in 40M rows."""
WORDS = ("red", "shoes", "phone 6,1 in", 'tv 55"', "sofa", "größe 42", "lamp, led", "book", "tea", "coat")
QUOTED: dict[str, Any] = {
    "label": "click",
    "time": {"column": "at", "format": "%Y-%m-%d %H:%M:%S"},
    "weight": "w",
    "missing": ["NULL"],
    "dense": [{"name": "price", "transform": "log1p"}, {"name": "age", "transform": "standardise"}, "score", "speed"],
    "categorical": [
        "user",
        "item",
        "shop",
        "query",
        {"name": "tags", "separator": "|", "pooling": "mean", "max_values": 6},
        {"name": "seen", "separator": "|", "pooling": "sum"},
        {"name": "hour", "part": "hour"},
        {"name": "weekday", "part": "weekday"},
        {"name": "price_bucket", "column": "price", "bucket": "log2"},
    ],
}
"""The schema of the quoted log."""


def _ranks(draw: np.random.Generator, size: int, tokens: int) -> NDArray[np.int64]:
    return (tokens * draw.random(size) ** 3).astype(np.int64)


def _hex(rank: NDArray[np.int64]) -> pa.Array:
    """Eight hex digits of each token's number, scattered."""
    value = ((rank + 1) * 0x9E3779B1 & 0xFFFFFFFF).astype(">u4")
    offsets = pa.py_buffer(np.arange(0, 8 * len(rank) + 1, 8, dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), len(rank), [None, offsets, pa.py_buffer(value.tobytes().hex().encode())])


def avazu(rows: int, seed: int) -> Iterator[pa.Table]:
    for begin, size, draw in _blocks(rows, seed):
        hour = START + (np.arange(begin, begin + size) * 240 // rows).astype("timedelta64[h]")
        columns: dict[str, Any] = {
            "id": pa.array(draw.integers(10**18, 2 * 10**18, size)).cast(pa.string()),
            "click": (draw.random(size) < 0.17).astype(np.int8),
            "hour": pc.strftime(pa.array(hour), "%y%m%d%H"),
        }
        for name, tokens in AVAZU.items():
            rank = _ranks(draw, size, tokens)
            if name == "device_id":
                rank[draw.random(size) < 0.82] = 0
            is_number = name.startswith("C") or tokens <= 10
            columns[name] = pa.array(rank + 1000 * (tokens > 10)).cast(pa.string()) if is_number else _hex(rank)
        yield pa.table(columns)


def quoted(rows: int, seed: int) -> Iterator[pa.Table]:
    words = pa.array([f"{one} {two} {number}" for one in WORDS for two in WORDS for number in range(20)])
    for begin, size, draw in _blocks(rows, seed):
        at = START + (np.arange(begin, begin + size) * 864_000 // rows).astype("timedelta64[s]")
        missing = draw.random(size) < 0.1
        yield pa.table(
            {
                "at": pa.array(at).cast(pa.timestamp("s")),
                "click": (draw.random(size) < 0.2).astype(np.int8),
                "w": np.round(draw.random(size) + 0.5, 1),
                "price": pa.array(np.round(np.exp(draw.normal(3, 1, size)), 2), mask=missing),
                "age": draw.integers(18, 90, size),
                "score": draw.random(size),
                "speed": pa.array(draw.normal(0, 1, size).astype(np.float32)).cast(pa.float64()),
                "user": _hex(_ranks(draw, size, 1_000_000)),
                "item": pa.array(_ranks(draw, size, 200_000)).cast(pa.string()),
                "shop": pa.array(_ranks(draw, size, 3_000)).cast(pa.string()),
                "query": words.take(pa.array(_ranks(draw, size, len(words)))),
                "tags": _bags(draw, size, 9, 20_000),
                "seen": _bags(draw, size, 5, 200_000),
            }
        )


def _bags(draw: np.random.Generator, size: int, most: int, tokens: int) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(draw.integers(0, most, size))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(_ranks(draw, int(offsets[-1]), tokens)).cast(pa.string()))


def _blocks(rows: int, seed: int) -> Iterator[tuple[int, int, np.random.Generator]]:
    for number, begin in enumerate(range(0, rows, BLOCK_ROWS)):
        yield begin, min(BLOCK_ROWS, rows - begin), np.random.default_rng([seed, number])


def _lines(table: pa.Table) -> bytes:
    """CSV lines: lists joined by `|`, missing numbers as NULL, quotes around the fields that need them."""
    columns = []
    for column in table.combine_chunks().columns:
        column = column.chunk(0)
        if pa.types.is_list(column.type):
            column = pc.binary_join(column, "|")
        elif pa.types.is_timestamp(column.type):
            column = pc.strftime(column, "%Y-%m-%d %H:%M:%S")
        text = pc.fill_null(column.cast(pa.string()), "NULL")
        inside = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
        columns.append(pc.if_else(pc.match_substring_regex(text, '[,"]'), inside, text))
    lines = pc.binary_join_element_wise(*columns, ",")
    return b"\n".join(lines.cast(pa.binary()).to_pylist()) + b"\n"


def make(kind: str, rows: int, seed: int, path: Path) -> None:
    """Writes the log; a file that is there is whole, and stays.

    Args:
        kind: criteo, avazu, quoted, or parquet: the quoted one's rows.
    """
    if path.exists():
        return
    part = path.with_suffix(".part")
    if kind == "criteo":
        command = [sys.executable, "-m", "dmoe", "synthesize", "criteo", "--rows", str(rows), "--seed", str(seed), "--output", str(part)]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL)
    elif kind == "parquet":
        writer = None
        for table in quoted(rows, seed):
            writer = writer or pq.ParquetWriter(part, table.schema, compression="zstd", compression_level=1)
            writer.write_table(table)
        assert writer
        writer.close()
    else:
        with part.open("wb") as file:
            for number, table in enumerate((avazu if kind == "avazu" else quoted)(rows, seed)):
                if not number:
                    file.write(",".join(table.column_names).encode() + b"\n")
                file.write(_lines(table))
    part.rename(path)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("kind", choices=KINDS)
    options.add_argument("--rows", type=int, required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--output", required=True)
    arguments = options.parse_args()
    make(arguments.kind, arguments.rows, arguments.seed, Path(arguments.output))


if __name__ == "__main__":
    main()
