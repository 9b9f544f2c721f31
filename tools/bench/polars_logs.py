"""The Polars pipelines of the logs of tools.bench.logs.

    python -m tools.bench.polars_logs polars avazu LOG OUTPUT

writes to the folder OUTPUT and prints the rows that it wrote.

Text to typed parquet once, counts of that in the streaming engine, ids by count, one zstd-1 parquet of dmoe's row groups. Polars has two
ways from tokens to ids: `join`, whose memory is bounded, and `map` (replace_strict), which is faster and takes more memory. A bag's tokens
are mapped in both: a join would tear its rows apart and group them again.
"""

import sys
from pathlib import Path
from typing import Any, Literal

from dmoe.testing.criteo import INTEGERS, TOKENS
from tools.bench.logs import AVAZU

MISSING, RARE, FIRST = 0, 1, 2
ROW_GROUP_ROWS = 32_768
LOGS = {"criteo": 10, "avazu": 2, "quoted": 10, "parquet": 10}
"""Each log's min_count."""
DENSE = ("price", "age", "score", "speed")
BAGS = {"tags": 6, "seen": None}
TEXTS = ("user", "item", "shop", "query")
IDS: dict[str, Literal["join", "map"]] = {"polars": "join", "polars-map": "map"}


def run(kind: str, ids: Literal["join", "map"], log: Path, output: Path) -> int:
    """Writes the data set; the rows that it has."""
    import polars as pl

    staged, flat, bags = _criteo(log) if kind == "criteo" else _avazu(log) if kind == "avazu" else _quoted(log, kind)
    staged.sink_parquet(output / "stage.parquet", compression="lz4")
    stage = joined = pl.scan_parquet(output / "stage.parquet")
    columns = []
    for name in (*flat, *bags):
        tokens = stage.select(pl.col(name).explode() if name in bags else name)
        counts = tokens.group_by(name).len().filter(pl.col(name).is_not_null() & (pl.col("len") >= LOGS[kind]))
        kept = counts.sort(["len", name], descending=[True, False]).with_row_index(f"{name}_id", offset=FIRST).collect(engine="streaming")
        kept.write_parquet(output / f"{name}.parquet")
        old, new = kept[name], kept[f"{name}_id"].cast(pl.Int32)
        if name in bags:
            found = pl.col(name).list.eval(pl.element().replace_strict(old, new, default=RARE, return_dtype=pl.Int32))
            column = pl.when(pl.col(name).list.len() > 0).then(found).otherwise(pl.lit([MISSING], pl.List(pl.Int32)))
        elif ids == "map":
            column = pl.col(name).replace_strict(old, new, default=RARE, return_dtype=pl.Int32)
            column = pl.when(pl.col(name).is_null()).then(MISSING).otherwise(column)
        else:
            joined = joined.join(kept.lazy().drop("len"), on=name, how="left", maintain_order="left")
            column = pl.when(pl.col(name).is_null()).then(MISSING).otherwise(pl.col(f"{name}_id").fill_null(RARE))
        columns.append((column if name in bags else column.cast(pl.Int32)).alias(name))
    dense = pl.col(INTEGERS).fill_null(0).cast(pl.Float32)
    numbers = {"criteo": lambda: ["label", dense.sign() * dense.abs().log1p()], "avazu": lambda: ["click"]}
    made = joined.select(*numbers.get(kind, lambda: ["click", *_numbers(stage)])(), *columns)
    made.sink_parquet(output / "data.parquet", compression="zstd", compression_level=1, row_group_size=ROW_GROUP_ROWS)
    return int(pl.scan_parquet(output / "data.parquet").select(pl.len()).collect().item())


def _criteo(log: Path) -> tuple[Any, list[str], list[str]]:
    """(what is staged, columns of one token, columns of bags)."""
    import polars as pl

    schema = {"label": pl.Int8} | dict.fromkeys(INTEGERS, pl.Int32) | dict.fromkeys(TOKENS, pl.String)
    raw = pl.scan_csv(log, separator="\t", has_header=False, schema=pl.Schema(schema), quote_char=None)
    return raw.with_columns(pl.col(TOKENS).str.to_integer(base=16, dtype=pl.UInt32)), list(TOKENS), []


def _avazu(log: Path) -> tuple[Any, list[str], list[str]]:
    import polars as pl

    types: dict[str, Any] = {"click": pl.Int8, "hour": pl.String} | dict.fromkeys(AVAZU, pl.String)
    raw = pl.scan_csv(log, schema_overrides=types | {"id": pl.String}, infer_schema=False)
    weekday = pl.col("hour").str.slice(0, 6).str.to_date("%y%m%d").dt.weekday() % 7
    made = raw.select("click", *AVAZU, pl.col("hour").str.slice(6, 2).cast(pl.Int8).alias("hour"), weekday.alias("weekday"))
    staged = made.with_columns(pl.col("weekday").is_in([0, 6]).cast(pl.Int8).alias("is_weekend"))
    return staged, [*AVAZU, "hour", "weekday", "is_weekend"], []


def _quoted(log: Path, kind: str) -> tuple[Any, list[str], list[str]]:
    import polars as pl

    if kind == "parquet":
        raw = pl.scan_parquet(log)
    else:
        types: dict[str, Any] = {"click": pl.Int8, "w": pl.Float32} | dict.fromkeys(DENSE, pl.Float64)
        raw = pl.scan_csv(log, schema_overrides=types, infer_schema=False, null_values=["NULL", ""])
        raw = raw.with_columns(
            pl.col("at").str.to_datetime("%Y-%m-%d %H:%M:%S", strict=True), *(pl.col(name).fill_null("").str.split("|") for name in BAGS)
        )
    bags = []
    for name, most in BAGS.items():
        kept = pl.col(name).list.drop_nulls().list.eval(pl.element().filter(pl.element() != ""))
        bags.append(kept.list.head(most) if most else kept)
    exponent = pl.col("price").abs().log(2).floor() + 1
    bucket = pl.when(pl.col("price").abs() < 1).then(0).otherwise(pl.col("price").sign() * exponent).cast(pl.Int64)
    staged = raw.select(
        "click",
        "w",
        *DENSE,
        *TEXTS,
        *bags,
        pl.col("at").dt.hour().alias("hour"),
        (pl.col("at").dt.weekday() % 7).alias("weekday"),
        bucket.alias("price_bucket"),
    )
    return staged, [*TEXTS, "hour", "weekday", "price_bucket"], list(BAGS)


def _numbers(stage: Any) -> list[Any]:
    import polars as pl

    moments = stage.select(mean=pl.col("age").mean(), deviation=pl.col("age").std(ddof=0)).collect(engine="streaming")
    mean, deviation = moments.row(0)
    price = pl.col("price").fill_null(0)
    made = [price.sign() * price.abs().log1p(), (pl.col("age") - mean) / deviation, pl.col("score"), pl.col("speed")]
    return [
        *(one.cast(pl.Float32).alias(name) for one, name in zip(made, DENSE, strict=True)),
        pl.col("w").cast(pl.Float32).alias("@weight"),
    ]


if __name__ == "__main__":
    name, kind, log, output = sys.argv[1:]
    print(run(kind, IDS[name], Path(log), Path(output)), flush=True)
