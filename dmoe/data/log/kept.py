"""What a data set keeps of how its log was read, so that another log can be read in the same way."""

from dataclasses import dataclass

from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity
from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest
from dmoe.data.log.described import identities
from dmoe.data.log.moments import are_moments
from dmoe.data.log.schema import Schema, parse_schema
from dmoe.data.log.vocabulary import Vocabulary, read_vocabulary
from dmoe.data.vocabulary_files import read_all
from dmoe.errors import UserError
from dmoe.paths import join


@dataclass(frozen=True)
class Kept:
    """A data set's schema, vocabularies, (mean, deviation) of standardised numbers, edges of quantiles, and the fingerprint of its
    making."""

    schema: Schema
    vocabularies: list[Vocabulary]
    moments: dict[str, tuple[float, float]]
    edges: dict[str, list[float]]
    fingerprint: str


def load_kept(folder: str) -> Kept:
    """Reads what `dmoe preprocess log` (or avazu) kept in a data set.

    Raises:
        UserError: no data set, one of another maker, one whose vocabulary is gone or is not the manifest's, or a manifest that
            contradicts itself.
    """
    manifest = load_manifest(folder)
    made_by = manifest.made_by
    if not isinstance(made_by.get("schema"), dict):
        raise UserError(f"--vocabulary {folder}: made from no schema; use the sub-command that made it ({manifest.dataset})")
    schema = parse_schema(made_by["schema"], join(folder, FILE))
    vocabularies = read_all(folder, manifest.categorical, read_vocabulary)
    moments, edges = made_by.get("moments"), made_by.get("edges")
    pairs = (
        {name: (float(pair[0]), float(pair[1])) for name, pair in moments.items() if are_moments(pair)} if isinstance(moments, dict) else {}
    )
    if absent := [one.name for one in schema.dense if one.transform == "standardise" and one.name not in pairs]:
        raise UserError(f"{join(folder, FILE)}: no finite mean and deviation of {absent[0]}; make the data set again")
    cut = edges if isinstance(edges, dict) else {}
    if absent := [one.name for one in schema.categorical if one.bucket and one.bucket.quantiles and one.name not in cut]:
        raise UserError(f"{join(folder, FILE)}: the edges of {absent[0]}'s buckets are not there; make the data set again")
    try:
        _check_same(join(folder, FILE), manifest, *identities(schema, made_by, {}))
        numbers = {name: [float(edge) for edge in found] for name, found in cut.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"{join(folder, FILE)}: made_by: {str(error).splitlines()[0][:150]}; copy the data set again") from None
    return Kept(schema, vocabularies, pairs, numbers, str(made_by.get("fingerprint")))


def _check_same(where: str, manifest: Manifest, numbers: dict[str, NumberIdentity], tokens: dict[str, TokenIdentity]) -> None:
    """Holds the features of a manifest against `made_by`, by which other logs are read: both have to say the same."""
    if [one.name for one in manifest.dense] != list(numbers) or [one.name for one in manifest.categorical] != list(tokens):
        raise UserError(f"{where}: made_by.schema has other features than the manifest; copy the data set again")
    for number in manifest.dense:
        if number.identity not in (None, numbers[number.name]):
            raise _contradiction(where, number.name)
    for feature in manifest.categorical:
        if feature.identity and feature.identity.model_copy(update={"tokens": None}) != tokens[feature.name]:
            raise _contradiction(where, feature.name)


def _contradiction(where: str, name: str) -> UserError:
    return UserError(f"{where}: feature {name}: its identity is not what made_by says; copy the data set again")
