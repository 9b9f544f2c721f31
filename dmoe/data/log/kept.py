"""What a data set keeps of how its log was read, so that another log can be read in the same way."""

from dataclasses import dataclass

from dmoe.data.dataset.manifest import FILE, load_manifest
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
        UserError: no data set, one of another maker, or one whose vocabulary is gone or is not the manifest's.
    """
    manifest = load_manifest(folder)
    made_by = manifest.made_by
    if not isinstance(made_by.get("schema"), dict):
        raise UserError(f"--vocabulary {folder}: made from no schema; use the sub-command that made it ({manifest.dataset})")
    schema = parse_schema(made_by["schema"], join(folder, FILE))
    vocabularies = read_all(folder, manifest.categorical, read_vocabulary)
    moments = made_by.get("moments")
    pairs = {name: (float(pair[0]), float(pair[1])) for name, pair in moments.items()} if isinstance(moments, dict) else {}
    edges = made_by.get("edges")
    numbers = {name: [float(edge) for edge in found] for name, found in edges.items()} if isinstance(edges, dict) else {}
    if absent := [one.name for one in schema.categorical if one.bucket and one.bucket.quantiles and one.name not in numbers]:
        raise UserError(f"{join(folder, FILE)}: the edges of {absent[0]}'s buckets are not there; make the data set again")
    return Kept(schema, vocabularies, pairs, numbers, str(made_by.get("fingerprint")))
