"""Folders with the ids of a run after a window, for `dmoe preprocess --vocabulary` and exports, and with the sightings of each token.

`manifest.json` (without rows) and `vocabulary/C1.parquet` (token, id, count) are as in any data set. `sightings/C1.parquet` (seen, born,
last) has a row for each of these tokens. `candidates/C1.parquet` (token, seen) has the tokens without a row.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.config.online_settings import IdsConfig
from dmoe.data.dataset.manifest import FILE, CategoricalFeature, DenseFeature, Manifest, load_manifest, save_manifest
from dmoe.data.dataset.vocabulary_files import FOLDER, file_of
from dmoe.data.prepare.count.hashed_sizes import parse_sizes
from dmoe.data.prepare.count.vocabulary import digest, digest_of, write_vocabulary
from dmoe.data.prepare.kept import kept_schema, read_kept
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.write.manifest_building import TRANSFORMS
from dmoe.errors import UserError, first_line
from dmoe.json_text import format_json
from dmoe.names import file_name
from dmoe.online.ids import FIRST_ID, FeatureIds, capacity_of, no_ids, rows_of
from dmoe.serve.encoding.raw_inputs import KEPT_OF_MAKING
from dmoe.storage.paths import PATHS, inside, join, write_atomic

VOCABULARY, SIGHTINGS, CANDIDATES = "vocabulary", "sightings", "candidates"


def plain(schema: Schema) -> Schema:
    """The schema for windows, without `min_count` and `max_ids`: admission and capacity decide which tokens get a row."""
    free = [one.model_copy(update={"min_count": None, "max_ids": None}) for one in schema.categorical]
    return schema.model_copy(update={"categorical": free})


def model_manifest(schema: Schema, settings: IdsConfig, dataset: str = "log") -> Manifest:
    """The manifest from which the model is built, before any row is read: the cardinality of a feature is its capacity or hash size.

    Raises:
        UserError: `online.ids.capacities` names a feature that does not exist.
    """
    sizes = parse_sizes(settings.hash_size, schema.categorical) if settings.hash_size else {}
    names = {one.name for one in schema.categorical}
    if unknown := sorted(set(settings.capacities) - names):
        raise UserError(f"online.ids.capacities: no categorical feature '{unknown[0]}' in the schema")
    return Manifest(
        dataset=dataset,
        dense=tuple(DenseFeature(name=one.name, transform=TRANSFORMS[one.transform], missing_share=0.0) for one in schema.dense),
        categorical=tuple(
            CategoricalFeature(
                name=one.name,
                kind="bucket" if one.bucket else "token",
                cardinality=sizes.get(one.name) or capacity_of(settings, one.name, small=bool(one.bucket or one.part)),
                missing_share=0.0,
                rare_share=0.0,
                pooling=one.pooling or "none",
            )
            for one in schema.categorical
        ),
        splits={},
        weight=schema.weight,
        group=schema.group,
    )


def first_ids(schema: Schema) -> dict[str, FeatureIds]:
    """feature -> its ids before the first window: none."""
    return {one.name: no_ids(one.name, pa.large_binary() if one.type == "string" else pa.int64()) for one in schema.categorical}


def folder_of(run: str, name: str) -> str:
    return inside(run, VOCABULARY, name)


def save_ids(folder: str, of: Manifest, ids: Mapping[str, FeatureIds]) -> Manifest:
    """Writes a folder atomically. A folder of an earlier attempt is replaced.

    Args:
        of: manifest of the data set of the window.
        ids: categorical feature -> its ids; empty if ids are hashed.

    Returns:
        The manifest of the folder.
    """
    made_by: dict[str, Any] = {key: of.made_by[key] for key in KEPT_OF_MAKING if key in of.made_by}
    # The fingerprint depends only on the content, so that the same windows give the same versions in any folder.
    parts = [
        made_by.get("schema"),
        made_by.get("moments"),
        made_by.get("edges"),
        {name: digest_of(one.tokens) for name, one in ids.items()},
    ]
    made_by["fingerprint"] = hashlib.sha256(format_json(parts).encode()).hexdigest()[:16]
    categorical = of.categorical
    if ids:
        made_by["vocabulary_sha256"] = digest([one.vocabulary for one in ids.values()])
        categorical = tuple(_with_ids(one, ids[one.name]) for one in categorical)
    manifest = of.model_copy(update={"splits": {}, "made_by": made_by, "categorical": categorical})
    shutil.rmtree(folder, ignore_errors=True)
    beside = folder + ".tmp"
    shutil.rmtree(beside, ignore_errors=True)
    for name in (FOLDER, SIGHTINGS, CANDIDATES) if ids else ("",):
        os.makedirs(join(beside, name))
    for name, one in ids.items():
        write_vocabulary(file_of(beside, name), one.vocabulary)
        _write(_file(beside, SIGHTINGS, name), {"seen": one.seen, "born": one.born, "last": one.last})
        _write(_file(beside, CANDIDATES, name), {"token": one.candidates, "seen": one.candidate_seen})
    save_manifest(beside, manifest)
    os.replace(beside, folder)
    return manifest


def _with_ids(feature: CategoricalFeature, ids: FeatureIds) -> CategoricalFeature:
    identity = feature.identity and feature.identity.model_copy(update={"tokens": digest_of(ids.tokens)})
    return feature.model_copy(update={"cardinality": ids.vocabulary.cardinality, "identity": identity})


def load_ids(folder: str, schema: Schema) -> dict[str, FeatureIds]:
    """Reads the ids that `save_ids` wrote; empty if ids are hashed.

    Raises:
        UserError: the folder is damaged or missing.
    """
    if not PATHS.exists(join(folder, FILE)):
        raise UserError(f"{folder}: is not there, but the checkpoint's rows have the ids of this vocabulary; copy it back")
    manifest = load_manifest(folder)
    if manifest.made_by.get("ids") == "hash":
        return {}
    found = {}
    for one in read_kept(folder, manifest, schema):
        path = _file(folder, SIGHTINGS, one.name)
        rows, waiting = _read(path), _read(_file(folder, CANDIDATES, one.name))
        if len(rows) != len(one.tokens):
            raise UserError(f"{path}: {len(rows):,} rows, its vocabulary has {len(one.tokens):,}; copy it back")
        numbers = {name: rows[name].to_numpy() for name in ("seen", "born", "last")}
        tokens = waiting["token"].combine_chunks().cast(one.tokens.type) if len(waiting) else pa.array([], one.tokens.type)
        seen = waiting["seen"].to_numpy()
        found[one.name] = FeatureIds(one.name, one.tokens, one.counts, **numbers, candidates=tokens, candidate_seen=seen)
    return found


def look_up(folder: str, feature: str, tokens: Sequence[str]) -> list[dict[str, Any]]:
    """Row, sightings, and windows of birth and last sighting of tokens. `row` is None for a token without a row.

    Raises:
        UserError: there is no such feature, or ids are hashed.
    """
    ids = load_ids(folder, kept_schema(folder, load_manifest(folder)))
    if feature not in ids:
        raise UserError(f"no feature '{feature}' with counted ids; the features are {', '.join(sorted(ids)) or 'hashed'}")
    one = ids[feature]
    texts = [token.decode(errors="replace") if isinstance(token, bytes) else str(token) for token in one.tokens.to_pylist()]
    place = {text: number for number, text in enumerate(texts)}
    if pa.types.is_large_binary(one.tokens.type):
        rows = rows_of(one, pa.array([token.encode() for token in tokens], pa.large_binary())).tolist()
        place |= {token: row - FIRST_ID for token, row in zip(tokens, rows, strict=True) if row >= FIRST_ID}
    waiting = [token.decode(errors="replace") if isinstance(token, bytes) else str(token) for token in one.candidates.to_pylist()]
    candidate = dict(zip(waiting, one.candidate_seen.tolist(), strict=True))
    told = []
    for token in tokens:
        at = place.get(token)
        if at is None:
            told.append({"token": token, "row": None, "seen": candidate.get(token, 0.0)})
        else:
            row = {"row": at + 2, "seen": float(one.seen[at]), "born": int(one.born[at]), "last": int(one.last[at])}
            told.append({"token": token, **row})
    return told


def _file(folder: str, kind: str, feature: str) -> str:
    return join(folder, kind, f"{file_name(feature)}.parquet")


def _write(path: str, columns: Mapping[str, Any]) -> None:
    with write_atomic(path, sync=False) as file:
        pq.write_table(pa.table(dict(columns)), file, compression="zstd", compression_level=1, use_dictionary=False)


def _read(path: str) -> pa.Table:
    try:
        with PATHS.open(path, "rb") as file:
            return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error, 150)}); copy it back") from None


def remove_old(run: str, needed: set[str]) -> None:
    """Removes vocabularies that no checkpoint needs. Those newer than all needed ones belong to the present window, and are kept."""
    folder, newest = inside(run, VOCABULARY), max(needed)
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name not in needed and name.isdigit() and name < newest:
            shutil.rmtree(inside(folder, name))
