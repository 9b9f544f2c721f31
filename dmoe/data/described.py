"""The manifest of a data set made from Criteo's logs."""

import os
from collections import Counter
from collections.abc import Mapping

import numpy as np

from dmoe.data.criteo import BUCKETS, CATEGORICAL, DENSE_TRANSFORM, INTEGERS
from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity
from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest
from dmoe.data.hashing import FUNCTION
from dmoe.data.inputs import Input
from dmoe.data.manifest_parts import made_splits, said_of_run, sound_manifest
from dmoe.data.shards import Range
from dmoe.data.stage import Part


def describe_run(
    deciding: Mapping[str, object],
    inputs: list[Input],
    parts: list[Part],
    fingerprint: str,
    lines: int,
    bad_lines: Counter[str],
    labelled: bool,
) -> dict[str, object]:
    """The manifest's `made_by`. `days` are the well-formed rows of each input, and the clicks among them where there are labels."""
    rows, positives = [0] * len(inputs), [0] * len(inputs)
    for part in parts:
        rows[part.input] += part.rows
        positives[part.input] += part.positives
    names = [os.path.basename(one.path) for one in inputs]
    days = [{"name": name, "rows": n, "positives": p} for name, n, p in zip(names, rows, positives, strict=True)]
    known = {"days": days} if labelled else {}
    return said_of_run("criteo", deciding, deciding, inputs, fingerprint, lines, bad_lines, known)


def token_identity(name: str, tokens: str | None, hashed: bool) -> TokenIdentity:
    """The identity of a categorical feature; `tokens` is its vocabulary's digest, None where it is hashed or not known."""
    return TokenIdentity(source="log_squared" if name in BUCKETS else "hex", tokens=tokens, hashed=FUNCTION if hashed else None)


def build_manifest(
    ranges: list[Range],
    cardinalities: dict[str, int],
    names: tuple[str, ...],
    labelled: bool,
    made_by: dict[str, object],
    digests: dict[str, str] | None,
) -> Manifest:
    """Missing and rare shares are over the rows of all splits. `digests` are the vocabularies', None where ids are hashed."""
    missing = np.sum([done.missing for done in ranges], axis=0)
    rare = np.sum([done.rare for done in ranges], axis=0)
    splits = made_splits(names, ranges, labelled)
    total = sum(split.rows for split in splits.values())
    categorical = [
        CategoricalFeature(
            name=name,
            kind="bucket" if name in BUCKETS else "token",
            cardinality=cardinality,
            missing_share=float(missing[f] / total),
            rare_share=float(rare[f] / total),
            identity=token_identity(name, digests[name] if digests else None, digests is None),
        )
        for f, (name, cardinality) in enumerate(cardinalities.items())
    ]
    dense = [
        DenseFeature(
            name=name,
            transform=DENSE_TRANSFORM,
            missing_share=float(missing[CATEGORICAL.index(bucket)] / total),
            identity=NumberIdentity(),
        )
        for name, bucket in zip(INTEGERS, BUCKETS, strict=True)
    ]
    return sound_manifest(dataset="criteo", dense=tuple(dense), categorical=tuple(categorical), splits=splits, made_by=made_by)
