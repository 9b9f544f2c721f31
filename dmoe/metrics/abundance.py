"""Information abundance of tables (Multi-Embedding, Guo et al. 2023): the effective number of dimensions of a table. Needs no torch.

Shapes: N rows of a table, K dims.
"""

from typing import Any

import numpy as np

from dmoe.checkpoint.contents import Contents

CHUNK_ROWS = 65536


def information_abundance(folder: str) -> dict[str, Any]:
    """IA = sum(s) / max(s) over the singular values s of each logical table of a checkpoint: from 1 (all rows on a line) to K.

    Computed from the Gram matrix [K, K], which is summed over chunks of rows, so memory does not grow with the table. Its eigenvalues are
    the squared singular values; singular values below 1e-8 of the largest count as 0.

    Returns:
        `sets`: mean IA over features for each table set; `tables`: logical table -> IA.
    """
    contents = Contents(folder)
    # In a light multi-embedding, an expert's embeddings are the sum of shared and private rows.
    names = [name for name in contents.index.tables if not name.endswith("/shared")] or list(contents.index.tables)
    tables = {name: abundance_of_gram(_gram(contents, name)) for name in names}
    sets: dict[str, list[float]] = {}
    for name, value in tables.items():
        sets.setdefault(name.rpartition("/")[2], []).append(value)
    return {"sets": [float(np.mean(sets[number])) for number in sorted(sets, key=lambda name: (len(name), name))], "tables": tables}


def abundance_of_gram(gram_KK: np.ndarray) -> float:
    """IA from the Gram matrix E^T E; 0 for a table of zeros."""
    singular_K = np.sqrt(np.clip(np.linalg.eigvalsh(gram_KK), 0, None))
    singular_K[singular_K < 1e-8 * singular_K.max(initial=0)] = 0
    return float(singular_K.sum() / singular_K.max()) if singular_K.max(initial=0) > 0 else 0.0


def _gram(contents: Contents, table: str) -> np.ndarray:
    rows, dim = contents.index.tables[table]
    gram_KK = np.zeros((dim, dim))
    shared = f"{table.rpartition('/')[0]}/shared"
    whole = contents.index.tables.get(shared, (rows, dim))[0]
    added = shared in contents.index.tables and shared != table
    for low in range(0, whole, CHUNK_ROWS):
        high = min(low + CHUNK_ROWS, whole)
        chunk_NK = contents.rows(shared if added else table, low, high).astype(np.float64)
        if added and low < rows:
            chunk_NK[: rows - low] += contents.rows(table, low, min(high, rows))
        gram_KK += chunk_NK.T @ chunk_NK
    return gram_KK
