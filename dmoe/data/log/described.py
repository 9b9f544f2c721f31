"""The manifest of a data set made from a log with a schema."""

import json
from typing import Any

import numpy as np

from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest
from dmoe.data.log.schema import Schema
from dmoe.data.log.shards import Range
from dmoe.data.log.vocabulary import Vocabulary
from dmoe.data.manifest_parts import made_splits

TRANSFORMS = {"none": "x", "log1p": "sign(x) * log1p(abs(x))", "standardise": "(x - mean) / deviation, of the train split"}


def build_manifest(
    dataset: str,
    schema: Schema,
    names: tuple[str, ...],
    ranges: list[Range],
    vocabularies: list[Vocabulary],
    made_by: dict[str, Any],
    labelled: bool,
) -> Manifest:
    """Shares and means are over the rows of all splits; of a multi-valued feature, over its ids."""
    splits = made_splits(names, ranges, labelled)
    total = sum(split.rows for split in splits.values())
    missing = np.sum([done.missing for done in ranges], axis=0) / total
    ids = np.sum([done.ids for done in ranges], axis=0)
    categorical = [
        CategoricalFeature(
            name=one.name,
            kind="bucket" if one.bucket else "token",
            cardinality=vocabulary.cardinality,
            missing_share=float(empty / every),
            rare_share=float(rare / every),
            pooling=one.pooling or "none",
            mean_ids=float(every / total),
        )
        for one, vocabulary, (empty, rare, every) in zip(schema.categorical, vocabularies, ids, strict=True)
    ]
    dense = [
        DenseFeature(name=one.name, transform=TRANSFORMS[one.transform], missing_share=float(share))
        for one, share in zip(schema.dense, missing, strict=True)
    ]
    weight, positive = np.sum([done.train_weight for done in ranges], axis=0)
    return Manifest(
        dataset=dataset,
        dense=tuple(dense),
        categorical=tuple(categorical),
        splits=splits,
        made_by=json.loads(json.dumps(made_by)),
        weight=schema.weight,
        group=schema.group,
        weighted_rate=float(positive / weight) if schema.weight and weight else None,
    )
