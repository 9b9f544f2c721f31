"""Rows a second of dmoe's reader, its share of a training step, and torchrec's own in-memory reader beside it.

    python -m tools.bench.reader

The data are made: Criteo's 26 + 13 columns, parquet as preprocessing writes it, warm page cache; one process, no
prefetching thread, CPU time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.manifest import Manifest, Shard, Split
from dmoe.data.reader import Reader
from tools.bench.case import DENSE_FEATURES, Case, manifest_of
from tools.bench.results import announce, loads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the log")
    parser.add_argument("--row-group", type=int, default=65_536)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step-ms", type=float, default=0.0, help="CPU time of a training step at this batch, to give the share of")
    arguments = parser.parse_args()
    announce()
    with tempfile.TemporaryDirectory() as folder:
        manifest = write(Path(folder), arguments.rows, arguments.row_group)
        readers: dict[str, Callable[[], Iterator[Any]]] = {
            f"dmoe shuffle={kind}": lambda kind=kind: read(folder, manifest, kind, arguments.batch)  # type: ignore[misc]
            for kind in ("none", "row_groups", "window")
        }
        try:
            readers["torchrec InMemoryBinaryCriteoIterDataPipe"] = in_memory(Path(folder), arguments.rows, arguments.batch)
        except ImportError as error:
            print(f"LEFT OUT: torchrec's InMemoryBinaryCriteoIterDataPipe: {error}")
        taken: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(arguments.rounds):
            for name, make in readers.items():
                start, rows = time.process_time(), 0
                for batch in make():
                    rows += len(batch.labels if hasattr(batch, "labels") else batch.label_B)
                taken[name].append((time.process_time() - start) / rows)
    for name, values in taken.items():
        each = statistics.median(values)
        share = f", {each * arguments.batch * 1e3 / arguments.step_ms:.1%} of a step" if arguments.step_ms else ""
        print(f"{name:44} {1 / each:12,.0f} rows/s, {each * arguments.batch * 1e3:6.2f} ms a batch of {arguments.batch:,}{share}")
    print(f"load {loads()}")


def write(folder: Path, rows: int, row_group: int) -> Manifest:
    """One shard with skewed ids of 100,000 a feature, and the same as the .npy files that torchrec reads."""
    case = Case(rows=100_000, batch=rows)
    rng = np.random.default_rng(0)
    label = (rng.random(rows) < 0.25).astype(np.uint8)
    dense = rng.normal(size=(rows, DENSE_FEATURES)).astype(np.float32)
    ids = (rng.random((case.features, rows)) ** 3 * case.rows).astype(np.int32)
    names = {f"I{i + 1}": column for i, column in enumerate(dense.T)} | {f"C{i + 1}": column for i, column in enumerate(ids)}
    (folder / "train").mkdir()
    path = folder / "train" / "part-00000.parquet"
    pq.write_table(pa.table({"label": label, **names}), path, row_group_size=row_group, compression="zstd", compression_level=1)
    for name, array in (("dense", dense), ("sparse", ids.T), ("labels", label[:, None].astype(np.int32))):
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array))
    shard = Shard(path=f"train/{path.name}", rows=rows, positives=int(label.sum()), sha256="0" * 64)
    return manifest_of(case).model_copy(update={"splits": {"train": Split(rows=rows, positives=shard.positives, shards=(shard,))}})


def read(folder: str, manifest: Manifest, shuffle: str, batch: int) -> Iterator[Any]:
    names = [feature.name for feature in manifest.dense]
    return Reader(folder, manifest, "train", manifest.categorical, names, shuffle=shuffle, prefetch=0).batches(batch, 0, 1)


def in_memory(folder: Path, rows: int, batch: int) -> Callable[[], Iterator[Any]]:
    """It keeps the whole of its files in memory, and shuffles nothing but the order of batches; its loading is not timed.

    Raises:
        ImportError: torchrec's data sets, or what they need, are not installed.
    """
    from torchrec.datasets.criteo import InMemoryBinaryCriteoIterDataPipe

    pipe = InMemoryBinaryCriteoIterDataPipe(
        "train",
        *([str(folder / f"{name}.npy")] for name in ("dense", "sparse", "labels")),
        batch_size=batch,
        rank=0,
        world_size=1,
        hashes=None,
    )
    return lambda: iter(pipe)


if __name__ == "__main__":
    main()
