"""Builds the manifest of a data set: identities of features, splits, and how it was made."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dmoe.config.strict import checked
from dmoe.data.dataset.identity import CrossPart, NumberIdentity, TokenIdentity, edges_digest
from dmoe.data.dataset.manifest import WEIGHT, CategoricalFeature, DenseFeature, Manifest, Shard, Split
from dmoe.data.prepare.count.vocabulary import Vocabulary, digest_of
from dmoe.data.prepare.schema import Categorical, Schema
from dmoe.data.prepare.source.log_files import File
from dmoe.data.prepare.split.part_splitter import count_days
from dmoe.data.prepare.write.parts import Part
from dmoe.data.prepare.write.shards import Range
from dmoe.json_text import format_json
from dmoe.version import __version__

FUNCTIONS = (
    "2 + splitmix64(token + 0x9e3779b97f4a7c15) mod (N - 2)",
    "2 + splitmix64's finaliser of fnv1a(token) mod (N - 2)",
)
"""The hash functions of HashedIds for integers and for text, as manifests name them. A changed function must get a new name."""
TRANSFORMS = {"none": "x", "log1p": "sign(x) * log1p(abs(x))", "standardise": "(x - mean) / deviation, of the train split"}
MOST_DAYS = 3_660
"""If a log has more days than ten years, its time column does not hold dates, and days are not counted."""


def identities(
    schema: Schema, made_by: Mapping[str, Any], digests: Mapping[str, str]
) -> tuple[dict[str, NumberIdentity], dict[str, TokenIdentity]]:
    """The identities of the dense and of the categorical features, by name.

    Args:
        made_by: of the manifest; `moments`, `edges` and `ids` are read.
        digests: digest of each known vocabulary, by feature.

    Raises:
        ValueError: moments or edges are missing or wrong.
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
    """Builds the manifest. Shares are of the rows of all splits; for a multi-valued feature, of its ids.

    Raises:
        UserError: the manifest contradicts itself. For example, two splits hold the same rows because all rows of the log are equal.
    """
    splits = {name: _split(name, ranges, labelled) for name in names}
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
    fields = {
        "dataset": dataset,
        "dense": tuple(dense),
        "categorical": tuple(categorical),
        "splits": splits,
        "made_by": json.loads(format_json(made_by)),
        "weight": weight_column,
        "group": schema.group,
        "weighted_rate": float(positive / weight) if weight_column and weight else None,
    }
    return checked(lambda tree: Manifest(**tree), fields, "the data set would not be usable")


def _split(name: str, ranges: Sequence[Range], labelled: bool) -> Split:
    """The split `name`, with the shards of the ranges in order."""
    held = [done.shards[name] for done in ranges if name in done.shards]
    shards = tuple(
        Shard(path=f"{name}/part-{number:05d}.parquet", rows=rows, positives=positives, sha256=digest)
        for number, (_, rows, positives, digest) in enumerate(held)
    )
    return Split(rows=sum(one.rows for one in shards), positives=sum(one.positives for one in shards), shards=shards, labelled=labelled)


def said_of_run(
    dataset: str,
    flags: Mapping[str, object],
    deciding: Mapping[str, object],
    inputs: Sequence[File],
    fingerprint: str,
    lines: int,
    bad_lines: Counter[str],
    counted: Mapping[str, object],
) -> dict[str, Any]:
    """The manifest's `made_by`, for people to read. It holds no times, workers or block size: the same data gives the same bytes.

    Args:
        flags: options of the command that decide the data set's bytes.
        deciding: everything that decides the data set's bytes.
        counted: further entries.
    """
    words = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in flags.items()]
    return {
        "command": f"dmoe preprocess {dataset} --input {' '.join(one.path for one in inputs)} {' '.join(words)}",
        "fingerprint": fingerprint,
        "inputs": [{"path": one.path, "bytes": one.size} for one in inputs],
        **deciding,
        "lines": lines,
        "bad_lines": dict(sorted(bad_lines.items())),
        **counted,
        "versions": {"dmoe": __version__, "pyarrow": pa.__version__},
    }


def days_of(parts: list[Part], files: list[File], schema: Schema) -> list[dict[str, object]]:
    """(name, rows, positives) of each day in order: of the dates of the time column, or else of the input files."""
    if schema.time and schema.time.format:
        rows, positives = count_days(parts, True, MOST_DAYS)
        if len(rows) <= MOST_DAYS:
            return [{"name": str(np.datetime64(day, "D")), "rows": rows[day], "positives": positives[day]} for day in sorted(rows)]
    rows, positives = count_days(parts, False)
    return [{"name": os.path.basename(one.path), "rows": rows[number], "positives": positives[number]} for number, one in enumerate(files)]
