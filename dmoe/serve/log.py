"""A data set's split in batches of plain arrays, and its scores as a file. No TorchRec.

Shapes: B rows, F categorical features, I numeric features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.manifest import load_manifest
from dmoe.errors import UserError
from dmoe.paths import PATHS, join
from dmoe.serve.format import ScorerFile
from dmoe.serve.scorer import Scorer


@dataclass(frozen=True)
class Rows:
    """A batch: dense [B, I] float32, ids [B, F] int32, label [B] bool."""

    dense_BI: np.ndarray
    ids_BF: np.ndarray
    label_B: np.ndarray


def read_split(folder: str, split: str, about: ScorerFile, batch_size: int) -> Iterator[Rows]:
    """A split's rows in the files' order.

    Raises:
        UserError: no such split, another schema than the model's, or a damaged shard.
    """
    manifest = load_manifest(folder)
    theirs = {feature.name: feature.cardinality for feature in manifest.categorical}
    for feature in about.features:
        if theirs.get(feature.name) != feature.cardinality:
            found = f"has {theirs[feature.name]:,} ids" if feature.name in theirs else "is not there"
            raise UserError(
                f"{folder}: feature {feature.name} {found}, the scorer was made with {feature.cardinality:,} ids;"
                " preprocess the log with the training data's vocabulary"
            )
    if absent := sorted(set(about.dense) - {feature.name for feature in manifest.dense}):
        raise UserError(f"{folder}: numeric feature {absent[0]} is not there, the scorer was made with it")
    names = ["label", *about.dense, *(feature.name for feature in about.features)]
    for shard in manifest.split(split).shards:
        path = join(folder, shard.path)
        if not PATHS.exists(path):
            raise UserError(f"{path}: missing, but the manifest names it")
        try:
            with PATHS.open(path, "rb") as file:
                for batch in pq.ParquetFile(file).iter_batches(batch_size, columns=names, use_threads=False):
                    yield _rows(batch, about)
        except (pa.ArrowException, KeyError) as error:
            raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0][:150]}); make the data set again") from None


def _rows(batch: pa.RecordBatch, about: ScorerFile) -> Rows:
    dense_BI = np.empty((batch.num_rows, len(about.dense)), np.float32)
    for index, name in enumerate(about.dense):
        dense_BI[:, index] = batch.column(name).to_numpy()
    # Column by column in memory, as the file is, so that filling it is a copy a column.
    ids_FB = np.empty((len(about.features), batch.num_rows), np.int32)
    for index, feature in enumerate(about.features):
        ids_FB[index] = batch.column(feature.name).to_numpy()
    return Rows(dense_BI, ids_FB.T, batch.column("label").to_numpy() > 0)


def score_split(scorer: Scorer, folder: str, split: str, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(logit [B] float32, label [B] bool) of each batch."""
    for rows in read_split(folder, split, scorer.about, batch_size):
        yield scorer.logits(rows.dense_BI, rows.ids_BF), rows.label_B


def write_scores(path: str, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Writes `score` (and `logit`, `label`) as parquet, or CSV where the name ends so, batch by batch; returns all logits and labels."""
    logits, labels = [], []
    schema = pa.schema([("score", pa.float32()), ("logit", pa.float32()), ("label", pa.uint8())])
    with PATHS.open(path, "wb") as file:
        writer = None if path.endswith(".csv") else pq.ParquetWriter(file, schema, compression="zstd")
        if writer is None:
            file.write(b"score,logit,label\n")
        for logit_B, label_B in batches:
            logits.append(logit_B)
            labels.append(label_B)
            score_B = (1 / (1 + np.exp(-logit_B.astype(np.float64)))).astype(np.float32)
            if writer is not None:
                writer.write_table(pa.table([score_B, logit_B, label_B.astype(np.uint8)], schema=schema))
            else:
                lines = (f"{s:.9g},{x:.9g},{y:d}\n" for s, x, y in zip(score_B, logit_B, label_B, strict=True))
                file.write("".join(lines).encode())
        if writer is not None:
            writer.close()
    return np.concatenate([*logits, np.empty(0, np.float32)]), np.concatenate([*labels, np.empty(0, bool)])
