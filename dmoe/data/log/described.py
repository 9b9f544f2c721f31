"""The manifest of a data set made from a log with a schema."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity, edges_digest, tokens_digest
from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest
from dmoe.data.log.schema import Schema
from dmoe.data.log.shards import Range
from dmoe.data.log.vocabulary import Vocabulary
from dmoe.data.manifest_parts import made_splits, sound_manifest
from dmoe.json_text import format_json

TRANSFORMS = {"none": "x", "log1p": "sign(x) * log1p(abs(x))", "standardise": "(x - mean) / deviation, of the train split"}


def identities(
    schema: Schema, made_by: Mapping[str, Any], digests: Mapping[str, str]
) -> tuple[dict[str, NumberIdentity], dict[str, TokenIdentity]]:
    """The identities of the dense and of the categorical features, by name.

    Args:
        made_by: the manifest's, of which `moments` and `edges` are read.
        digests: of the vocabularies, those that are known.

    Raises:
        ValueError: moments or edges are not what they should be.
    """
    moments, edges = made_by.get("moments", {}), made_by.get("edges", {})
    missing = tuple(sorted(set(schema.missing)))
    try:
        numbers = {
            one.name: NumberIdentity(moments=_pair(moments[one.name]) if one.transform == "standardise" else None, missing=missing)
            for one in schema.dense
        }
        tokens = {
            one.name: TokenIdentity(
                source=one.part or ((one.bucket.formula or "edges") if one.bucket else "text"),
                tokens=digests.get(one.name),
                edges=edges_digest(one.bucket.edges or edges[one.name]) if one.bucket and not one.bucket.formula else None,
                max_values=one.max_values,
                missing=missing,
            )
            for one in schema.categorical
        }
    except (TypeError, LookupError) as error:
        raise ValueError(f"no moments or edges of {error}") from None
    return numbers, tokens


def _pair(moments: Any) -> tuple[float, float]:
    mean, deviation = moments
    return float(mean), float(deviation)


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
    numbers, tokens = identities(schema, made_by, {one.name: tokens_digest(one.tokens) for one in vocabularies})
    categorical = [
        CategoricalFeature(
            name=one.name,
            kind="bucket" if one.bucket else "token",
            cardinality=vocabulary.cardinality,
            missing_share=float(empty / every),
            rare_share=float(rare / every),
            pooling=one.pooling or "none",
            mean_ids=float(every / total),
            identity=tokens[one.name],
        )
        for one, vocabulary, (empty, rare, every) in zip(schema.categorical, vocabularies, ids, strict=True)
    ]
    dense = [
        DenseFeature(
            name=one.name,
            transform=TRANSFORMS[one.transform],
            missing_share=float(share),
            identity=numbers[one.name],
        )
        for one, share in zip(schema.dense, missing, strict=True)
    ]
    weight, positive = np.sum([done.train_weight for done in ranges], axis=0)
    return sound_manifest(
        dataset=dataset,
        dense=tuple(dense),
        categorical=tuple(categorical),
        splits=splits,
        made_by=json.loads(format_json(made_by)),
        weight=schema.weight,
        group=schema.group,
        weighted_rate=float(positive / weight) if schema.weight and weight else None,
    )
