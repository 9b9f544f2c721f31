"""The rivals of dmoe preprocess, for `tools.bench.preprocess`, which says what each does and does not do.

    python -m tools.bench.pipelines polars LOG OUTPUT
    python -m tools.bench.pipelines polars-map LOG OUTPUT avazu

Each reads LOG, writes to the folder OUTPUT and prints the rows that it wrote or read. The log is Criteo's form (label, I1..I13, C1..C26,
tab-separated), or another of tools.bench.logs that is named last.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.bench import polars_logs

MIN_COUNT = 10
BLOCK = 8 << 20
MISSING, RARE, FIRST = 0, 1, 2
DENSE = [f"I{i + 1}" for i in range(13)]
TOKENS = [f"C{i + 1}" for i in range(26)]


def scan(log: Path, output: Path) -> int:
    rows = 0
    with log.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            rows += block.count(b"\n")
    return rows


def pyarrow(log: Path, output: Path) -> int:
    """Typed, in blocks: dense values as int32, tokens as strings."""
    import pyarrow as pa
    from pyarrow import csv

    types = {"label": pa.int8()} | dict.fromkeys(DENSE, pa.int32()) | dict.fromkeys(TOKENS, pa.string())
    reader = csv.open_csv(
        log,
        csv.ReadOptions(column_names=list(types), block_size=BLOCK),
        csv.ParseOptions(delimiter="\t", quote_char=False),
        csv.ConvertOptions(column_types=types),
    )
    return sum(batch.num_rows for batch in reader)


def polars(log: Path, output: Path) -> int:
    """Text once into typed parquet, then counts and joins over that, all streaming."""
    import polars as pl

    schema = {"label": pl.Int8} | dict.fromkeys(DENSE, pl.Int32) | dict.fromkeys(TOKENS, pl.String)
    raw = pl.scan_csv(log, separator="\t", has_header=False, schema=pl.Schema(schema), quote_char=None)
    staged = raw.with_columns(pl.col(TOKENS).str.to_integer(base=16, dtype=pl.UInt32))
    staged.sink_parquet(output / "stage.parquet", compression="lz4")
    stage = joined = pl.scan_parquet(output / "stage.parquet")
    for name in TOKENS:
        counts = stage.group_by(name).len().filter(pl.col(name).is_not_null() & (pl.col("len") >= MIN_COUNT))
        ids = counts.sort(["len", name], descending=[True, False]).with_row_index(f"{name}_id", offset=FIRST)
        vocabulary = ids.collect(engine="streaming")
        vocabulary.write_parquet(output / f"{name}.parquet")
        joined = joined.join(vocabulary.lazy().drop("len"), on=name, how="left", maintain_order="left")
    dense = pl.col(DENSE).fill_null(0).cast(pl.Float32)
    made = joined.select(
        "label",
        dense.sign() * dense.abs().log1p(),
        *(
            pl.when(pl.col(name).is_null()).then(MISSING).otherwise(pl.col(f"{name}_id").fill_null(RARE)).cast(pl.Int32).alias(name)
            for name in TOKENS
        ),
    )
    made.sink_parquet(output / "data.parquet", compression="zstd", compression_level=1, row_group_size=polars_logs.ROW_GROUP_ROWS)
    return int(pl.scan_parquet(output / "data.parquet").select(pl.len()).collect().item())


def torchrec(log: Path, output: Path) -> int:
    import numpy as np
    from torchrec.datasets.criteo import BinaryCriteoUtils

    dense, sparse, labels = (str(output / f"day_0_{kind}.npy") for kind in ("dense", "sparse", "labels"))
    BinaryCriteoUtils.tsv_to_npys(str(log), dense, sparse, labels, dataset_name="criteo_kaggle")
    BinaryCriteoUtils.sparse_to_contiguous([sparse], str(output), frequency_threshold=MIN_COUNT)
    return int(np.load(output / "day_0_sparse_contig_freq.npy", mmap_mode="r").shape[0])


def fuxictr(log: Path, output: Path) -> int:
    """Wants a header: the log's copy beside it, LOG.csv, has one."""
    import polars as pl
    import pyarrow.parquet as pq
    from fuxictr.datasets.criteo import CustomizedFeatureProcessor  # type: ignore[import-not-found]
    from fuxictr.preprocess import build_dataset  # type: ignore[import-not-found]

    # FuxiCTR 2.3.10 calls an argument by a name that Polars 2 has no more; renamed, it runs as it did.
    def scan_csv(*given: Any, _scan: Callable[..., Any] = pl.scan_csv, **named: Any) -> Any:
        return _scan(*given, **{"schema_overrides" if name == "dtypes" else name: value for name, value in named.items()})

    pl.scan_csv = scan_csv
    columns = [
        {"name": DENSE, "active": True, "dtype": "int", "type": "categorical", "fill_na": -1, "preprocess": "convert_to_bucket"},
        {"name": TOKENS, "active": True, "dtype": "str", "type": "categorical"},
    ]
    label = {"name": "label", "dtype": "float"}
    processor = CustomizedFeatureProcessor(columns, label, dataset_id="criteo", data_root=str(output))
    build_dataset(processor, train_data=f"{log}.csv", sep="\t", min_categr_count=MIN_COUNT)
    return int(pq.read_metadata(output / "criteo" / "train.parquet").num_rows)


PIPELINES: dict[str, Callable[[Path, Path], int]] = {
    "polars": polars,
    "torchrec": torchrec,
    "fuxictr": fuxictr,
    "pyarrow": pyarrow,
    "scan": scan,
}


OF_LOGS: dict[str, Callable[[str, Path, Path], int]] = {
    "polars": lambda kind, log, output: polars_logs.run(kind, "join", log, output),
    "polars-map": lambda kind, log, output: polars_logs.run(kind, "map", log, output),
}
"""Those of the logs that are not of Criteo's form."""


if __name__ == "__main__":
    name, *places = sys.argv[1:4]
    log, output = (Path(one) for one in places)
    print(OF_LOGS[name](sys.argv[4], log, output) if len(sys.argv) > 4 else PIPELINES[name](log, output), flush=True)
