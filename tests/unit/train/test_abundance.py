"""Information abundance against numpy's singular values, from a checkpoint in pieces."""

import numpy as np
import pytest

from dmoe.checkpoint.index import DENSE, Index, Piece, write_index
from dmoe.checkpoint.tensors import write_tensors
from dmoe.metrics import abundance
from dmoe.metrics.abundance import abundance_of_gram, information_abundance


def by_svd(table: np.ndarray) -> float:
    singular = np.linalg.svd(table.astype(np.float64), compute_uv=False)
    return singular.sum() / singular.max()


def test_of_a_checkpoint_cut_by_rows_and_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(abundance, "CHUNK_ROWS", 7)
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(40, 6)).astype(np.float32), np.outer(rng.normal(size=9), rng.normal(size=4)).astype(np.float32)
    name = "tables-00000-00001.safetensors"
    parts = {"a": one[:13], "b": one[13:, :2], "c": one[13:, 2:], "d": other}
    with open(tmp_path / name, "wb") as file:
        size, digest = write_tensors(file, [(key, "F32", part.shape) for key, part in parts.items()], list(parts.values()))
    with open(tmp_path / DENSE, "wb") as file:
        dense = write_tensors(file, [("x", "F32", (1,))], [np.zeros(1, np.float32)])
    places = [("C1/0", 0, 0, 13, 6, "a"), ("C1/0", 13, 0, 27, 2, "b"), ("C1/0", 13, 2, 27, 4, "c"), ("C2/1", 0, 0, 9, 4, "d")]
    pieces = tuple(Piece(table, "weight", row, column, rows, columns, name, key) for table, row, column, rows, columns, key in places)
    write_index(str(tmp_path), Index({"C1/0": (40, 6), "C2/1": (9, 4)}, pieces, {name: (size, digest), DENSE: dense}, {}))
    found = information_abundance(str(tmp_path))
    assert found["tables"]["C1/0"] == pytest.approx(by_svd(one), rel=1e-6)
    assert found["tables"]["C2/1"] == pytest.approx(1.0, abs=1e-5)
    assert found["sets"] == pytest.approx([by_svd(one), 1.0], abs=1e-5)


def test_a_table_of_zeros_has_none():
    assert abundance_of_gram(np.zeros((3, 3))) == 0.0
    assert abundance_of_gram(np.eye(3)) == pytest.approx(3.0)
