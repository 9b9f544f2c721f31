"""The manifest of a data set made from Criteo's logs."""

import os
from collections import Counter
from collections.abc import Mapping

import numpy as np

from dmoe.data.criteo import BUCKETS, CATEGORICAL, DENSE_TRANSFORM, INTEGERS
from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest
from dmoe.data.inputs import Input
from dmoe.data.manifest_parts import made_splits, said_of_run
from dmoe.data.shards import Range
from dmoe.data.stage import Part


def describe_run(
    deciding: Mapping[str, object],
    inputs: list[Input],
    parts: list[Part],
    fingerprint: str,
    lines: int,
    bad_lines: Counter[str],
) -> dict[str, object]:
    """The manifest's `made_by`. `days` are the well-formed rows of each input, and the clicks among them where there are labels."""
    rows, positives = [0] * len(inputs), [0] * len(inputs)
    for part in parts:
        rows[part.input] += part.rows
        positives[part.input] += part.positives
    names = [os.path.basename(one.path) for one in inputs]
    days = [{"name": name, "rows": n, "positives": p} for name, n, p in zip(names, rows, positives, strict=True)]
    known = {"days": days} if inputs[0].layout.labelled else {}
    return said_of_run("criteo", deciding, deciding, inputs, fingerprint, lines, bad_lines, known)


def build_manifest(
    ranges: list[Range], cardinalities: dict[str, int], names: tuple[str, ...], labelled: bool, made_by: dict[str, object]
) -> Manifest:
    """Missing and rare shares are over the rows of all splits."""
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
        )
        for f, (name, cardinality) in enumerate(cardinalities.items())
    ]
    dense = [
        DenseFeature(name=name, transform=DENSE_TRANSFORM, missing_share=float(missing[CATEGORICAL.index(bucket)] / total))
        for name, bucket in zip(INTEGERS, BUCKETS, strict=True)
    ]
    return Manifest(dataset="criteo", dense=tuple(dense), categorical=tuple(categorical), splits=splits, made_by=made_by)
