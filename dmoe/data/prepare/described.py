"""The manifest of a data set made from a log with a schema."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from dmoe.data.dataset.identity import CrossPart, NumberIdentity, TokenIdentity, edges_digest
from dmoe.data.dataset.manifest import WEIGHT, CategoricalFeature, DenseFeature, Manifest
from dmoe.data.manifest_parts import made_splits, sound_manifest
from dmoe.data.prepare.schema import Categorical, Schema
from dmoe.data.prepare.shards import Range
from dmoe.data.prepare.vocabulary import Vocabulary, digest_of
from dmoe.json_text import format_json

FUNCTIONS = (
    "2 + splitmix64(token + 0x9e3779b97f4a7c15) mod (N - 2)",
    "2 + splitmix64's finaliser of fnv1a(token) mod (N - 2)",
)
"""What HashedIds computes of numbers and of text, as manifests name it: another function takes another name."""
TRANSFORMS = {"none": "x", "log1p": "sign(x) * log1p(abs(x))", "standardise": "(x - mean) / deviation, of the train split"}


def identities(
    schema: Schema, made_by: Mapping[str, Any], digests: Mapping[str, str]
) -> tuple[dict[str, NumberIdentity], dict[str, TokenIdentity]]:
    """The identities of the dense and of the categorical features, by name.

    Args:
        made_by: the manifest's, of which `moments`, `edges` and `ids` are read.
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
                source=_source(one),
                tokens=digests.get(one.name),
                hashed=FUNCTIONS[one.type == "string"] if made_by.get("ids") == "hash" else None,
                edges=_edges(one, edges),
                cross=tuple(CrossPart(name=part.name, source=_source(part), edges=_edges(part, edges)) for part in schema.parts_of(one))
                if one.cross
                else (),
                max_values=one.max_values,
                missing=missing,
            )
            for one in schema.categorical
        }
    except (TypeError, LookupError) as error:
        raise ValueError(f"no moments or edges of {error}") from None
    return numbers, tokens


def _source(one: Categorical) -> Any:
    if one.cross:
        return "cross"
    if one.bucket:
        return one.bucket.formula or "edges"
    return one.part or ("text" if one.type == "string" else one.type)


def _edges(one: Categorical, quantiles: Mapping[str, Any]) -> str | None:
    return edges_digest(one.bucket.edges or quantiles[one.name]) if one.bucket and not one.bucket.formula else None


def _pair(moments: Any) -> tuple[float, float]:
    mean, deviation = moments
    return float(mean), float(deviation)


def build_manifest(
    dataset: str,
    schema: Schema,
    names: tuple[str, ...],
    ranges: list[Range],
    cardinalities: dict[str, int],
    vocabularies: list[Vocabulary],
    made_by: dict[str, Any],
    labelled: bool,
) -> Manifest:
    """Shares and means are over the rows of all splits; of a multi-valued feature, over its ids."""
    splits = made_splits(names, ranges, labelled)
    total = sum(split.rows for split in splits.values())
    missing = np.sum([done.missing for done in ranges], axis=0) / total
    ids = np.sum([done.ids for done in ranges], axis=0)
    numbers, tokens = identities(schema, made_by, {one.name: digest_of(one.tokens) for one in vocabularies})
    categorical = [
        CategoricalFeature(
            name=one.name,
            kind="bucket" if one.bucket else "token",
            cardinality=cardinalities[one.name],
            missing_share=float(empty / every),
            rare_share=float(rare / every),
            pooling=one.pooling or "none",
            mean_ids=float(every / total),
            identity=tokens[one.name],
        )
        for one, (empty, rare, every) in zip(schema.categorical, ids, strict=True)
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
    weight_column = schema.weight or (WEIGHT if schema.negatives else None)
    weight, positive = np.sum([done.train_weight for done in ranges], axis=0)
    return sound_manifest(
        dataset=dataset,
        dense=tuple(dense),
        categorical=tuple(categorical),
        splits=splits,
        made_by=json.loads(format_json(made_by)),
        weight=weight_column,
        group=schema.group,
        weighted_rate=float(positive / weight) if weight_column and weight else None,
    )
