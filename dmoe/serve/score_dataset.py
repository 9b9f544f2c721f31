"""Reads a split of a data set in batches of numpy arrays, scores it, and writes the scores to a file. It needs no TorchRec.

Shapes: B rows, F categorical features, I numeric features.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.dataset.files import verify_shard
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.dataset.reading.bags import Bags
from dmoe.errors import UserError, first_line
from dmoe.finite import require_finite
from dmoe.serve.export.format import FILE, ScorerFile
from dmoe.serve.scorer import Scorer
from dmoe.storage.paths import PATHS, join, write_output
from dmoe.train.run.run_inputs import check_data


@dataclass(frozen=True)
class Rows:
    """A batch: dense [B, I] float32, ids [B, F] int32, label [B] bool (None if the log has no labels), and the bags of multi-valued
    features."""

    dense_BI: np.ndarray
    ids_BF: np.ndarray
    label_B: np.ndarray | None
    bags: dict[str, Bags]


def check_fits(about: ScorerFile, manifest: Manifest, folder: str) -> None:
    """Checks that the ids and numbers of a data set have the same meaning as in the scorer.

    Raises:
        UserError: a feature differs (names the first one), or the scorer does not record what its ids mean.
    """
    if about.reads is None:
        raise UserError(
            f"{FILE}: an earlier version wrote it, and it does not say which tokens its ids stand for; export the run again with"
            " dmoe export"
        )
    check_data(about.reads, manifest, folder)


def read_split(folder: str, split: str, about: ScorerFile, batch_size: int) -> Iterator[Rows]:
    """Yields the rows of a split in the order of the files.

    Raises:
        UserError: the split is missing, its ids or numbers have another meaning than those of the model, or a shard is damaged.
    """
    manifest = load_manifest(folder)
    check_fits(about, manifest, folder)
    labelled = ["label"] if manifest.split(split).labelled else []
    names = [*labelled, *about.dense, *(feature.name for feature in about.features)]
    for shard in manifest.split(split).shards:
        path = join(folder, shard.path)
        verify_shard(folder, shard, bool(labelled))
        try:
            with PATHS.open(path, "rb") as file:
                for batch in pq.ParquetFile(file).iter_batches(batch_size, columns=names, use_threads=False):
                    yield _rows(batch, about)
        except (pa.ArrowException, KeyError) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error, 150)}); make the data set again") from None


def _rows(batch: pa.RecordBatch, about: ScorerFile) -> Rows:
    dense_BI = np.empty((batch.num_rows, len(about.dense)), np.float32)
    for index, name in enumerate(about.dense):
        dense_BI[:, index] = batch.column(name).to_numpy()
    # The ids of a column are contiguous in memory, like in the file, so that each column is one copy.
    ids_FB = np.empty((len(about.features), batch.num_rows), np.int32)
    bags = {}
    for index, feature in enumerate(about.features):
        column = batch.column(feature.name)
        if feature.pooling == "none":
            ids_FB[index] = column.to_numpy()
            continue
        offsets = column.offsets.to_numpy().astype(np.int64)
        bags[feature.name] = Bags(column.flatten().to_numpy(), offsets - offsets[0])
        ids_FB[index] = 0
    label_B = batch.column("label").to_numpy() > 0 if "label" in batch.schema.names else None
    return Rows(dense_BI, ids_FB.T, label_B, bags)


def score_split(scorer: Scorer, folder: str, split: str, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields (logit [B] float32, label [B] bool or None) for each batch.

    Raises:
        UserError: from `read_split` or `Scorer.logits`; row numbers in messages start from 0 at the beginning of the split.
    """
    first_row = 0
    for rows in read_split(folder, split, scorer.about, batch_size):
        try:
            logit_B = scorer.logits(rows.dense_BI, rows.ids_BF, rows.bags, first_row)
        except UserError as error:
            raise UserError(f"{folder}, split '{split}': {error}") from None
        yield logit_B, rows.label_B
        first_row += len(logit_B)


def probabilities(logit_N: np.ndarray) -> np.ndarray:
    """The click probabilities of finite logits, float64; rounded to 0 or 1 if float64 has no closer number."""
    with np.errstate(over="ignore"):
        found_N: np.ndarray = 1 / (1 + np.exp(-logit_N.astype(np.float64)))
    return found_N


def write_scores(path: str, batches: Iterator[tuple[np.ndarray, np.ndarray | None]]) -> tuple[np.ndarray, np.ndarray | None]:
    """Writes `score`, `logit`, and `label` if there are labels, batch by batch. The file is CSV if its name ends in .csv, else parquet.

    Returns:
        All logits, and all labels or None.

    Raises:
        UserError: a logit is not finite; an existing file is then unchanged.
    """
    with write_output(path) as file:
        return _write_batches(file, batches, path.endswith(".csv"))


def _write_batches(
    file: BinaryIO, batches: Iterator[tuple[np.ndarray, np.ndarray | None]], csv: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    with ExitStack() as stack:
        writer, first_row = None, 0
        for logit_B, label_B in batches:
            require_finite(logit_B, "the logit", first_row)
            columns = {"score": probabilities(logit_B).astype(np.float32), "logit": logit_B}
            if label_B is not None:
                columns["label"] = label_B.astype(np.uint8)
                labels.append(label_B)
            if csv:
                header = "" if logits else ",".join(columns) + "\n"
                lines = (",".join(f"{value:.9g}" for value in row) + "\n" for row in zip(*columns.values(), strict=True))
                file.write((header + "".join(lines)).encode())
            else:
                table = pa.table(columns)
                writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema, compression="zstd"))
                writer.write_table(table)
            logits.append(logit_B)
            first_row += len(logit_B)
    return np.concatenate([*logits, np.empty(0, np.float32)]), np.concatenate(labels) if labels else None
