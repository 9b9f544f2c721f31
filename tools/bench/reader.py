"""Rows a second of dmoe's reader by shuffle, and its share of a training step.

    python -m tools.bench.reader --rows 500000

The reader is what training uses: zstd parquet as preprocessing writes it, decoded, checked (ids in range, numbers finite, page checksums)
and batched with no transpose, in memory of the row groups that take turns. One process, one thread, the page cache warm, CPU time. Rounds
are interleaved; a training step (D-MoE of configs/criteo_dmoe.yaml on the same batch, one thread) is measured in the same ones.
"""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.bench.case import DENSE_FEATURES, Case, manifest_of, opened
from tools.bench.results import announce, clock, in_turns, loads, parser, ratio, spread

if TYPE_CHECKING:
    from dmoe.data.dataset.manifest import Manifest

SHUFFLES = ("window", "row_groups", "none")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=500_000, help="of the log")
    options.add_argument("--row-group", type=int, default=32_768)
    options.add_argument("--batch", type=int, default=4096)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    rows, batch = arguments.rows, arguments.batch
    if min(rows, arguments.row_group, batch, arguments.rounds) < 1:
        options.error("at least 1 row, row of a group, row of a batch and round")
    announce()
    session, made = opened(Case(batch=batch, threads=1))
    with tempfile.TemporaryDirectory() as folder:
        manifest = write(Path(folder), rows, arguments.row_group)

        def read_all(shuffle: str) -> None:
            found = sum(len(one.label_B) for one in read(folder, manifest, shuffle, batch))
            if found != rows:
                raise SystemExit(f"shuffle={shuffle}: {found:,} rows of {rows:,}")

        calls: dict[str, Any] = {shuffle: lambda shuffle=shuffle: read_all(shuffle) for shuffle in SHUFFLES}
        calls["step"] = lambda: session.pipeline.progress(made)
        taken = in_turns(calls, arguments.rounds, clock(1, session.device))
    step = statistics.median(taken["step"])
    print(f"{rows:,} rows, batch {batch:,}, {arguments.rounds} rounds; load {loads()}")
    for shuffle in SHUFFLES:
        seconds = statistics.median(taken[shuffle])
        each = seconds / rows * batch
        rate = f"{rows / seconds:12,.0f} rows/s +-{spread(taken[shuffle]):4.0%}  ratio {ratio(taken[shuffle], taken['window']):5.2f}"
        print(f"parquet, shuffle={shuffle:10} {rate}  {each * 1e3:6.2f} ms a batch, {each / step:.2%} of a step")
    print(f"a training step: {step * 1e3:,.0f} CPU ms")


def write(folder: Path, rows: int, row_group: int) -> "Manifest":
    """A split `train` of one shard, with skewed ids of 100,000 a feature; its manifest is returned, not written."""
    import numpy as np
    import pyarrow as pa

    from dmoe.data.dataset.manifest import Shard, Split
    from dmoe.data.parquet import many_values, write_shard

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


if __name__ == "__main__":
    main()
