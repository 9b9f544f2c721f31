"""A log without labels is scored as one with labels, but for the column of labels."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.manifest import Manifest, Shard, Split, save_manifest
from dmoe.serve.score_dataset import score_split, write_scores
from dmoe.serve.scorer import Scorer
from tests.unit.serve.test_scorer import INPUTS, batch, make


@pytest.mark.parametrize("labelled", [False, True])
def test_scores_of_a_log(tmp_path, labelled):
    make(tmp_path)
    dense_BI, ids_BF = batch(50)
    columns = {f"I{i}": dense_BI[:, i] for i in range(3)} | {f"C{i}": ids_BF[:, i].astype(np.int32) for i in range(2)}
    label = (np.arange(50) % 3 == 0).astype(np.uint8)
    pq.write_table(pa.table(columns | ({"label": label} if labelled else {})), tmp_path / "part.parquet")
    digest = file_sha256(str(tmp_path / "part.parquet"))
    shard = Shard(path="part.parquet", rows=50, positives=int(label.sum()) * labelled, sha256=digest)
    manifest = Manifest(
        dataset="test",
        dense=INPUTS.dense,
        categorical=INPUTS.categorical,
        splits={"score": Split(rows=50, positives=shard.positives, shards=(shard,), labelled=labelled)},
    )
    save_manifest(str(tmp_path), manifest)
    scorer = Scorer(str(tmp_path))
    expected = scorer.logits(dense_BI, ids_BF)
    for name in ("scores.parquet", "scores.csv"):
        logits, labels = write_scores(str(tmp_path / name), score_split(scorer, str(tmp_path), "score", 20))
        np.testing.assert_allclose(logits, expected, rtol=1e-5)
        assert (labels is None) if not labelled else (labels == label).all()
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column_names == ["score", "logit", "label"][: 3 if labelled else 2]
    np.testing.assert_allclose(table["score"].to_numpy(), 1 / (1 + np.exp(-expected.astype(np.float64))), rtol=1e-5)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0] == ",".join(table.column_names)
    for line, row in zip(lines[1:], table.to_pylist(), strict=True):
        assert [float(value) for value in line.split(",")] == pytest.approx(list(row.values()), rel=1e-6)
