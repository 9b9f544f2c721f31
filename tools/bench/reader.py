"""Rows a second of dmoe's reader beside torchrec's on the same rows, and its share of a training step.

    python -m tools.bench.reader --rows 500000

parquet           dmoe's reader, which is what training uses: zstd parquet as preprocessing writes it, decoded, checked (ids in range,
                  numbers finite, page checksums) and batched with no transpose, in memory of the row groups that take turns; by shuffle.
columns-npy       No reader of dmoe's, which reads parquet alone: the bound of what one could reach. `dmoe data export`'s file a column,
                  memory-mapped, slices copied into the batch's tensors in order; nothing is decoded, checked or shuffled.
torchrec-npy      torchrec's InMemoryBinaryCriteoIterDataPipe on the export in its own layout: all rows in memory, loaded before the clock
                  starts; no shuffle but of whole batches, no check, a transpose a batch. `mmap`: its files memory-mapped instead.

One process, one thread, the page cache warm, CPU time. Rounds are interleaved: each contender in turn reads all rows. Ratios are the
medians, over rounds, of a contender's time over parquet's shuffled by window in the same round: above 1, the window is faster. A training
step (D-MoE of configs/criteo_dmoe.yaml on the same batch, one thread) is measured in the same rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.bench.results import announce, loads

if TYPE_CHECKING:
    from dmoe.data.dataset.manifest import Manifest

MAIN = "parquet, shuffle=window"
Contender = Callable[[], Iterator[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000, help="of the log")
    parser.add_argument("--row-group", type=int, default=32_768)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of training, a round; 0 for none")
    arguments = parser.parse_args()
    if min(arguments.rows, arguments.row_group, arguments.batch, arguments.rounds) < 1 or arguments.steps < 0:
        parser.error("at least 1 row, row of a group, row of a batch and round")
    announce()
    with tempfile.TemporaryDirectory() as folder:
        readers = contenders(Path(folder), arguments.rows, arguments.row_group, arguments.batch)
        step = training_step(arguments.batch) if arguments.steps else lambda: None
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        steps: list[float] = []
        for _ in range(arguments.rounds):
            for name, make in readers.items():
                began = time.process_time()
                rows = sum(rows_of(batch) for batch in make())
                seconds[name].append((time.process_time() - began) / rows)
                if rows != arguments.rows:
                    raise SystemExit(f"{name}: {rows:,} rows of {arguments.rows:,}")
            for _ in range(arguments.steps):
                began = time.process_time()
                step()
                steps.append(time.process_time() - began)
    print(f"{arguments.rows:,} rows, batch {arguments.batch:,}, {arguments.rounds} rounds; load {loads()}")
    for name, taken in seconds.items():
        each = statistics.median(taken)
        ratio = statistics.median(own / main for own, main in zip(taken, seconds[MAIN], strict=True))
        spread = (max(taken) - min(taken)) / each
        batch_ms = each * arguments.batch * 1e3
        share = f", {batch_ms / statistics.median(steps) / 1e3:.2%} of a step" if steps else ""
        print(f"{name:26} {1 / each:12,.0f} rows/s +-{spread:4.0%}  ratio {ratio:5.2f}  {batch_ms:6.2f} ms a batch{share}")
    if steps:
        print(f"a training step: {statistics.median(steps) * 1e3:,.0f} CPU ms")


def contenders(folder: Path, rows: int, row_group: int, batch: int) -> dict[str, Contender]:
    """What reads all rows once, in batches, by name. A reader that is not installed is left out aloud."""
    from dmoe.data.dataset.manifest import save_manifest
    from dmoe.data.npy import export

    manifest = write(folder, rows, row_group)
    save_manifest(str(folder), manifest)
    found: dict[str, Contender] = {
        f"parquet, shuffle={kind}": lambda kind=kind: read(str(folder), manifest, kind, batch)  # type: ignore[misc]
        for kind in ("window", "row_groups", "none")
    }
    export(str(folder), str(folder / "columns"), "columns-npy")
    found["columns-npy, bound"] = lambda: read_columns(folder / "columns" / "train", manifest, batch)
    export(str(folder), str(folder / "npy"), "torchrec-npy")
    try:
        for how, mapped in (("memory", False), ("mmap", True)):
            found[f"torchrec-npy, {how}"] = torchrec_pipe(folder / "npy", batch, mapped)
    except ImportError as error:
        print(f"LEFT OUT: torchrec's InMemoryBinaryCriteoIterDataPipe: {error}")
    return found


def rows_of(batch: Any) -> int:
    return len(batch.labels if hasattr(batch, "labels") else batch.label_B)


def write(folder: Path, rows: int, row_group: int) -> "Manifest":
    """A split `train` of one shard, with skewed ids of 100,000 a feature; its manifest is returned, not written."""
    import pyarrow as pa

    from dmoe.data.dataset.manifest import Shard, Split
    from dmoe.data.parquet import many_values, write_shard
    from tools.bench.case import DENSE_FEATURES, Case, manifest_of

    case = Case(rows=100_000, batch=rows)
    rng = np.random.default_rng(0)
    label = (rng.random(rows) < 0.25).astype(np.uint8)
    dense = rng.normal(size=(rows, DENSE_FEATURES)).astype(np.float32)
    ids = (rng.random((case.features, rows)) ** 3 * case.rows).astype(np.int32)
    columns = {f"I{i + 1}": column for i, column in enumerate(dense.T)} | {f"C{i + 1}": column for i, column in enumerate(ids)}
    (folder / "train").mkdir()
    manifest = manifest_of(case)
    many = many_values({feature.name: feature.cardinality for feature in manifest.categorical})
    digest = write_shard(str(folder / "train" / "part-00000.parquet"), pa.table({"label": label, **columns}), row_group, many)
    shard = Shard(path="train/part-00000.parquet", rows=rows, positives=int(label.sum()), sha256=digest)
    return manifest.model_copy(update={"splits": {"train": Split(rows=rows, positives=shard.positives, shards=(shard,))}})


def read(folder: str, manifest: "Manifest", shuffle: str, batch: int) -> Iterator[Any]:
    from dmoe.data.dataset.reading.reader import Reader

    names = [feature.name for feature in manifest.dense]
    return Reader(folder, manifest, "train", manifest.categorical, names, shuffle=shuffle, prefetch=0).batches(batch, 0, 1)


def read_columns(folder: Path, manifest: "Manifest", batch: int) -> Iterator[Any]:
    """The batches that the reader makes without a shuffle, from a memory-mapped file a column."""
    import torch
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    from dmoe.data.dataset.batch import Batch

    columns = {path.stem: np.load(path, mmap_mode="r") for path in folder.iterdir()}
    keys, names = [feature.name for feature in manifest.categorical], [feature.name for feature in manifest.dense]
    for start in range(0, len(columns["label"]), batch):
        stop = min(start + batch, len(columns["label"]))
        ids, dense = np.empty((len(keys), stop - start), np.int64), np.empty((stop - start, len(names)), np.float32)
        for index, key in enumerate(keys):
            ids[index] = columns[key][start:stop]
        for index, name in enumerate(names):
            dense[:, index] = columns[name][start:stop]
        lengths = torch.ones(ids.size, dtype=torch.int32)
        sparse = KeyedJaggedTensor(keys=keys, values=torch.from_numpy(ids.reshape(-1)), lengths=lengths, stride=stop - start)
        label = torch.from_numpy(columns["label"][start:stop].astype(np.float32))
        yield Batch(torch.from_numpy(dense), sparse, label, torch.ones(stop - start))


def torchrec_pipe(folder: Path, batch: int, mapped: bool) -> Contender:
    """
    Raises:
        ImportError: torchrec's data sets, or what they need, are not installed.
    """
    from torchrec.datasets.criteo import InMemoryBinaryCriteoIterDataPipe

    paths = ([str(folder / f"train_{kind}.npy")] for kind in ("dense", "sparse", "labels"))
    pipe = InMemoryBinaryCriteoIterDataPipe("train", *paths, batch_size=batch, rank=0, world_size=1, hashes=None, mmap_mode=mapped)
    return lambda: iter(pipe)


def training_step(batch: int) -> Callable[[], None]:
    """One step of D-MoE on one thread, warmed up."""
    from tools.bench.case import Case, opened

    session, batches = opened(Case(batch=batch, threads=1))

    def step() -> None:
        session.pipeline.progress(batches)

    step()
    return step


if __name__ == "__main__":
    main()
