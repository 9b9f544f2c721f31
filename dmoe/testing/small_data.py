"""A small data set with a signal, in the format of preprocessing, for tests and examples."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity, tokens_digest
from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest, Shard, Split, save_manifest

NUMBER_SCALE = 4096
"""Row numbers divided by it are exact in float32, and not larger than other features."""


def write_tokens(folder: Path, name: str, tokens: np.ndarray) -> str:
    """Writes a vocabulary of int64 tokens, each counted once; returns its digest."""
    path = folder / "vocabulary" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.arange(2, 2 + len(tokens), dtype=np.int32)
    pq.write_table(pa.table({"token": tokens.astype(np.int64), "id": ids, "count": np.ones(len(tokens), np.int64)}), path)
    return tokens_digest(tokens.astype(np.int64))


def make_data_set(
    folder: Path,
    rows: dict[str, int] | None = None,
    cardinalities: tuple[int, ...] = (40, 30, 25, 60),
    dense: int = 3,
    seed: int = 0,
    numbered: bool = False,
) -> Manifest:
    """Writes shards, vocabularies and a manifest. Labels depend on products of latent vectors of ids and on a smooth function of numbers.

    The token of id i is i, so of two data sets the smaller vocabulary is the beginning of the larger one.

    Args:
        numbered: I1 of each training row is row number / NUMBER_SCALE in place of what the label depends on, to check which rows were used.
    """
    rows = rows or {"train": 3000, "validation": 700, "test": 700}
    rng = np.random.default_rng(seed)
    latent = [rng.normal(size=(size, 4)) for size in cardinalities]
    names, dense_names = [f"C{i + 1}" for i in range(len(cardinalities))], [f"I{i + 1}" for i in range(dense)]
    splits = {}
    for split, count in rows.items():
        ids = [np.minimum(rng.zipf(1.3, count) - 1, size - 1).astype(np.int32) for size in cardinalities]
        numbers = rng.normal(size=(count, dense)).astype(np.float32)
        vectors = [latent[field][column] for field, column in enumerate(ids)]
        score = sum((vectors[f] * vectors[f + 1]).sum(1) for f in range(len(ids) - 1)) * 0.5 + np.sin(numbers).sum(1) - 1
        label = (rng.random(count) < 1 / (1 + np.exp(-score))).astype(np.uint8)
        if numbered and split == "train":
            numbers[:, 0] = np.arange(count, dtype=np.float32) / NUMBER_SCALE
        columns = {"label": label, **dict(zip(dense_names, numbers.T, strict=True)), **dict(zip(names, ids, strict=True))}
        shards = []
        for number, part in enumerate(np.array_split(np.arange(count), 2)):
            if not len(part):
                continue
            path = folder / split / f"part-{number:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                pa.table({name: column[part] for name, column in columns.items()}), path, row_group_size=256, write_page_checksum=numbered
            )
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            positives = int(label[part].sum())
            shards.append(Shard(path=f"{split}/{path.name}", rows=len(part), positives=positives, sha256=digest))
        splits[split] = Split(rows=count, positives=int(label.sum()), shards=tuple(shards))
    manifest = Manifest(
        dataset="small",
        dense=tuple(DenseFeature(name=name, transform="none", missing_share=0.0, identity=NumberIdentity()) for name in dense_names),
        categorical=tuple(
            CategoricalFeature(
                name=name,
                kind="token",
                cardinality=size,
                missing_share=0.0,
                rare_share=0.0,
                identity=TokenIdentity(source="text", tokens=write_tokens(folder, name, np.arange(2, size))),
            )
            for name, size in zip(names, cardinalities, strict=True)
        ),
        splits=splits,
    )
    save_manifest(str(folder), manifest)
    return manifest


def small_data_set() -> str:
    """The folder of a small data set, which is made once in a process and removed when the process ends."""
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory(prefix="dmoe-")
        make_data_set(Path(_folder.name))
    return _folder.name


_folder: tempfile.TemporaryDirectory[str] | None = None
