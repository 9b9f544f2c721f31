"""The last step of preprocessing: the manifest, and the move of what was made into its place."""

import os
import shutil
from collections import Counter
from collections.abc import Mapping

import numpy as np

import dmoe
from dmoe.data.criteo import BUCKETS, CATEGORICAL, DENSE_TRANSFORM, INTEGERS
from dmoe.data.inputs import Input
from dmoe.data.manifest import FILE, CategoricalFeature, DenseFeature, Manifest, Shard, Split, save_manifest
from dmoe.data.shards import Range
from dmoe.data.split import NAMES
from dmoe.data.vocabulary import Vocabulary, write_vocabulary

REJECTS = "rejects"


def describe_run(
    deciding: Mapping[str, object], inputs: list[Input], fingerprint: str, lines: int, bad_lines: Counter[str]
) -> dict[str, object]:
    """The manifest's `made_by`, for people to read. No times, no workers, no block size: the same data gives the same bytes."""
    import pyarrow as pa

    flags = [f"--{name.replace('_', '-')} {value}" for name, value in deciding.items()]
    return {
        "command": f"tools/preprocess.py criteo --input {' '.join(one.path for one in inputs)} {' '.join(flags)}",
        "fingerprint": fingerprint,
        "inputs": [{"path": one.path, "bytes": one.size} for one in inputs],
        **deciding,
        "lines": lines,
        "bad_lines": dict(sorted(bad_lines.items())),
        "versions": {"dmoe": dmoe.__version__, "pyarrow": pa.__version__},
    }


def build_manifest(ranges: list[Range], vocabularies: list[Vocabulary], total: int, made_by: dict[str, object]) -> Manifest:
    """Missing and rare shares are over the rows of all splits."""
    missing = np.sum([done.missing for done in ranges], axis=0)
    rare = np.sum([done.rare for done in ranges], axis=0)
    splits = {}
    for name in NAMES:
        held = [done.shards[name] for done in ranges if name in done.shards]
        shards = [
            Shard(path=f"{name}/part-{n:05d}.parquet", rows=rows, positives=positives, sha256=digest)
            for n, (_, rows, positives, digest) in enumerate(held)
        ]
        splits[name] = Split(rows=sum(s.rows for s in shards), positives=sum(s.positives for s in shards), shards=tuple(shards))
    categorical = [
        CategoricalFeature(
            name=vocabulary.name,
            kind="bucket" if vocabulary.name in BUCKETS else "token",
            cardinality=vocabulary.cardinality,
            missing_share=float(missing[f] / total),
            rare_share=float(rare[f] / total),
        )
        for f, vocabulary in enumerate(vocabularies)
    ]
    dense = [
        DenseFeature(name=name, transform=DENSE_TRANSFORM, missing_share=float(missing[CATEGORICAL.index(bucket)] / total))
        for name, bucket in zip(INTEGERS, BUCKETS, strict=True)
    ]
    return Manifest(dataset="criteo", dense=tuple(dense), categorical=tuple(categorical), splits=splits, made_by=made_by)


def move_rejects(output: str, work: str) -> None:
    shutil.rmtree(os.path.join(output, REJECTS), ignore_errors=True)
    if os.path.isdir(os.path.join(work, REJECTS)):
        os.replace(os.path.join(work, REJECTS), os.path.join(output, REJECTS))


def publish(output: str, work: str, manifest: Manifest, ranges: list[Range], vocabularies: list[Vocabulary]) -> None:
    """Moves the shards into place and writes the manifest last; can be repeated after a kill at any point."""
    begun = os.path.join(work, "finishing-" + str(manifest.made_by["fingerprint"]))
    if not os.path.exists(begun):
        # An old data set goes now, its manifest first, so that no manifest ever names files that are not its own.
        if os.path.exists(os.path.join(output, FILE)):
            os.remove(os.path.join(output, FILE))
        for name in (*NAMES, "vocabulary"):
            shutil.rmtree(os.path.join(output, name), ignore_errors=True)
        open(begun, "w").close()
    for name in (*NAMES, "vocabulary"):
        os.makedirs(os.path.join(output, name), exist_ok=True)
    for name in NAMES:
        sources = [done.shards[name][0] for done in ranges if name in done.shards]
        for source, shard in zip(sources, manifest.splits[name].shards, strict=True):
            if os.path.exists(source):
                os.replace(source, os.path.join(output, shard.path))
    for vocabulary in vocabularies:
        write_vocabulary(os.path.join(output, "vocabulary", f"{vocabulary.name}.parquet"), vocabulary)
    move_rejects(output, work)
    save_manifest(work, manifest)
    os.replace(os.path.join(work, FILE), os.path.join(output, FILE))
    shutil.rmtree(work, ignore_errors=True)
