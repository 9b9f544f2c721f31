"""A data set's split in batches of plain arrays, and its scores as a file. No TorchRec.

Shapes: B rows, F categorical features, I numeric features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.dataset.bags import Bags
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError
from dmoe.paths import PATHS, join
from dmoe.serve.format import ScorerFile
from dmoe.serve.scorer import Scorer


@dataclass(frozen=True)
class Rows:
    """A batch: dense [B, I] float32, ids [B, F] int32, label [B] bool, or None where the log has none; `bags` as Scorer.logits takes
    them."""

    dense_BI: np.ndarray
    ids_BF: np.ndarray
    label_B: np.ndarray | None
    bags: dict[str, Bags]


def read_split(folder: str, split: str, about: ScorerFile, batch_size: int) -> Iterator[Rows]:
    """A split's rows in the files' order.

    Raises:
        UserError: no such split, another schema than the model's, or a damaged shard.
    """
    manifest = load_manifest(folder)
    theirs = {feature.name: feature for feature in manifest.categorical}
    for feature in about.features:
        other = theirs.get(feature.name)
        if other is not None and other.pooling != feature.pooling:
            raise UserError(f"{folder}: feature {feature.name} has pooling {other.pooling}, the scorer was made with {feature.pooling}")
        if other is None or other.cardinality != feature.cardinality:
            found = "is not there" if other is None else f"has {other.cardinality:,} ids"
            raise UserError(
                f"{folder}: feature {feature.name} {found}, the scorer was made with {feature.cardinality:,} ids;"
                " preprocess the log with the training data's vocabulary"
            )
    if absent := sorted(set(about.dense) - {feature.name for feature in manifest.dense}):
        raise UserError(f"{folder}: numeric feature {absent[0]} is not there, the scorer was made with it")
    labelled = ["label"] if manifest.split(split).labelled else []
    names = [*labelled, *about.dense, *(feature.name for feature in about.features)]
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
    """(logit [B] float32, label [B] bool or None) of each batch."""
    for rows in read_split(folder, split, scorer.about, batch_size):
        yield scorer.logits(rows.dense_BI, rows.ids_BF, rows.bags), rows.label_B


def write_scores(path: str, batches: Iterator[tuple[np.ndarray, np.ndarray | None]]) -> tuple[np.ndarray, np.ndarray | None]:
    """Writes `score`, `logit`, and `label` where there are labels, as parquet, or CSV where the name ends so, batch by batch.

    Returns:
        All logits, and all labels or None.
    """
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    writer = None
    with PATHS.open(path, "wb") as file:
        for logit_B, label_B in batches:
            score_B = (1 / (1 + np.exp(-logit_B.astype(np.float64)))).astype(np.float32)
            columns = {"score": score_B, "logit": logit_B}
            if label_B is not None:
                columns["label"] = label_B.astype(np.uint8)
                labels.append(label_B)
            if path.endswith(".csv"):
                header = "" if logits else ",".join(columns) + "\n"
                lines = (",".join(f"{value:.9g}" for value in row) + "\n" for row in zip(*columns.values(), strict=True))
                file.write((header + "".join(lines)).encode())
            else:
                table = pa.table(columns)
                writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
                writer.write_table(table)
            logits.append(logit_B)
        if writer is not None:
            writer.close()
    return np.concatenate([*logits, np.empty(0, np.float32)]), np.concatenate(labels) if labels else None
