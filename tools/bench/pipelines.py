"""The rivals of dmoe preprocess, for `tools.bench.preprocess`, which says what each does and does not do.

    python -m tools.bench.pipelines polars avazu LOG OUTPUT

Each reads LOG, one of tools.bench.logs, writes to the folder OUTPUT and prints the rows that it wrote or read.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmoe.testing.criteo import INTEGERS, TOKENS
from tools.bench import polars_logs

MIN_COUNT = polars_logs.LOGS["criteo"]
BLOCK = 8 << 20


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

    types = {"label": pa.int8()} | dict.fromkeys(INTEGERS, pa.int32()) | dict.fromkeys(TOKENS, pa.string())
    reader = csv.open_csv(
        log,
        csv.ReadOptions(column_names=list(types), block_size=BLOCK),
        csv.ParseOptions(delimiter="\t", quote_char=False),
        csv.ConvertOptions(column_types=types),
    )
    return sum(batch.num_rows for batch in reader)


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
        {"name": list(INTEGERS), "active": True, "dtype": "int", "type": "categorical", "fill_na": -1, "preprocess": "convert_to_bucket"},
        {"name": list(TOKENS), "active": True, "dtype": "str", "type": "categorical"},
    ]
    label = {"name": "label", "dtype": "float"}
    processor = CustomizedFeatureProcessor(columns, label, dataset_id="criteo", data_root=str(output))
    build_dataset(processor, train_data=f"{log}.csv", sep="\t", min_categr_count=MIN_COUNT)
    return int(pq.read_metadata(output / "criteo" / "train.parquet").num_rows)


POLARS: dict[str, Callable[[str, Path, Path], int]] = {
    "polars": lambda kind, log, output: polars_logs.run(kind, "join", log, output),
    "polars-map": lambda kind, log, output: polars_logs.run(kind, "map", log, output),
}
OF_CRITEO: dict[str, Callable[[Path, Path], int]] = {"torchrec": torchrec, "fuxictr": fuxictr, "pyarrow": pyarrow, "scan": scan}
"""Those of Criteo's form alone."""


if __name__ == "__main__":
    name, kind, *places = sys.argv[1:]
    log, output = (Path(one) for one in places)
    print(POLARS[name](kind, log, output) if name in POLARS else OF_CRITEO[name](log, output), flush=True)
