"""Reads from a data set how its log was read (schema, vocabularies, moments, edges), to read another log in the same way."""

from dataclasses import dataclass

from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity
from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest
from dmoe.data.prepare.count.moments import are_moments
from dmoe.data.prepare.count.vocabulary import Vocabulary, digest, read_all, read_vocabulary
from dmoe.data.prepare.schema import Schema, load_schema, parse_schema, shipped
from dmoe.data.prepare.write.manifest_building import identities
from dmoe.errors import UserError, first_line, one_line
from dmoe.storage.paths import join


@dataclass(frozen=True)
class Kept:
    """How the log of a data set was read.

    Attributes:
        vocabularies: empty if the ids are hashed; then `sizes` has the rows of each feature's table.
        moments: (mean, deviation) of each standardised number.
        edges: of each feature with quantile buckets.
        dataset: the log's name.
        fingerprint: identifies the inputs and options that the data set was made from.
    """

    schema: Schema
    vocabularies: list[Vocabulary]
    sizes: dict[str, int]
    moments: dict[str, tuple[float, float]]
    edges: dict[str, list[float]]
    dataset: str
    fingerprint: str


def load_kept(folder: str) -> Kept:
    """Reads how the log of the data set in `folder` was read.

    Raises:
        UserError: there is no data set, another program made it, or its vocabulary is missing or does not belong to its manifest.
    """
    manifest = load_manifest(folder)
    where, made_by, schema = join(folder, FILE), manifest.made_by, kept_schema(folder, manifest)
    hashed = made_by.get("ids") == "hash"
    vocabularies = [] if hashed else read_kept(folder, manifest, schema)
    sizes = {one.name: one.cardinality for one in manifest.categorical} if hashed else {}
    moments, edges = made_by.get("moments"), made_by.get("edges")
    found = moments.items() if isinstance(moments, dict) else ()
    pairs = {name: (float(pair[0]), float(pair[1])) for name, pair in found if are_moments(pair)}
    if absent := [one.name for one in schema.dense if one.transform == "standardise" and one.name not in pairs]:
        raise UserError(f"{where}: no finite mean and deviation of {one_line(absent[0])}; make the data set again")
    cut = edges if isinstance(edges, dict) else {}
    if absent := [one.name for one in schema.categorical if one.bucket and one.bucket.quantiles and one.name not in cut]:
        raise UserError(f"{where}: no bucket edges of {one_line(absent[0])}; make the data set again")
    try:
        _check_same(where, manifest, *identities(schema, made_by, {}))
        numbers = {name: [float(edge) for edge in found] for name, found in cut.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: made_by: {first_line(error, 150)}; copy the data set again") from None
    return Kept(schema, vocabularies, sizes, pairs, numbers, manifest.dataset, str(made_by.get("fingerprint")))


def _check_same(where: str, manifest: Manifest, numbers: dict[str, NumberIdentity], tokens: dict[str, TokenIdentity]) -> None:
    """Compares the features of a manifest with its `made_by`, by which other logs are read. Both must agree."""
    if [one.name for one in manifest.dense] != list(numbers) or [one.name for one in manifest.categorical] != list(tokens):
        raise UserError(f"{where}: made_by.schema has other features than the manifest; copy the data set again")
    for number in manifest.dense:
        if number.identity not in (None, numbers[number.name]):
            raise _contradiction(where, number.name)
    for feature in manifest.categorical:
        if feature.identity and feature.identity.model_copy(update={"tokens": None}) != tokens[feature.name]:
            raise _contradiction(where, feature.name)


def _contradiction(where: str, name: str) -> UserError:
    return UserError(f"{where}: feature {one_line(name)}: its identity is not what made_by says; copy the data set again")


def kept_schema(folder: str, manifest: Manifest) -> Schema:
    """The schema that a data set was made with. A data set from before schemas were kept gets the shipped schema of its name.

    Raises:
        UserError: the data set keeps no schema.
    """
    kept = manifest.made_by.get("schema")
    if isinstance(kept, dict):
        return parse_schema(kept, join(folder, FILE))
    if manifest.dataset in shipped():
        schema = load_schema(manifest.dataset)
        if [one.name for one in schema.categorical] == [one.name for one in manifest.categorical]:
            return schema
    raise UserError(f"--vocabulary {folder}: a data set of '{manifest.dataset}' that keeps no schema; make it with dmoe preprocess")


def read_kept(folder: str, manifest: Manifest, schema: Schema) -> list[Vocabulary]:
    """The vocabularies of a data set, to give another data set the same ids.

    Raises:
        UserError: they are missing, damaged, or do not belong to this manifest.
    """
    integers = {one.name: one.type != "string" for one in schema.categorical}
    vocabularies = read_all(folder, manifest.categorical, lambda path, name: read_vocabulary(path, name, integers.get(name)))
    if manifest.made_by.get("vocabulary_sha256") not in (None, digest(vocabularies)):
        raise UserError(f"{folder}: its vocabularies are not those that its manifest was written with; copy the whole data set again")
    return vocabularies
