"""The identities of features in manifests that were made before a manifest held them (`dmoe.data.dataset.identity`)."""

from dmoe.data.criteo import CATEGORICAL, INTEGERS
from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity, tokens_digest
from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest
from dmoe.data.vocabulary_files import file_of
from dmoe.errors import UserError
from dmoe.paths import PATHS, join


def with_identities(manifest: Manifest, folder: str) -> Manifest:
    """The manifest with the identity of every feature, as far as it can be told.

    A manifest that holds identities is given back as it is. For an earlier one they are made from `made_by`, and from the vocabularies
    in `folder`. A vocabulary that is not there leaves `identity.tokens` None, a manifest of an unknown maker leaves `identity` None.

    Args:
        folder: of the data set, or where it was when the manifest was copied; its vocabularies count only if its manifest is still
            the same.

    Raises:
        UserError: a vocabulary is damaged or is not the manifest's, or `made_by` is.
    """
    if all(one.identity for one in manifest.dense) and all(one.identity for one in manifest.categorical):
        return manifest
    numbers: dict[str, NumberIdentity] = {}
    tokens: dict[str, TokenIdentity] = {}
    names = [one.name for one in manifest.categorical]
    kept = _holds(folder, manifest) and all(PATHS.exists(file_of(folder, name)) for name in names)
    if isinstance(manifest.made_by.get("schema"), dict):
        numbers, tokens = _of_log(manifest, folder, kept)
    elif manifest.dataset == "criteo" and (names, [one.name for one in manifest.dense]) == (list(CATEGORICAL), list(INTEGERS)):
        numbers, tokens = _of_criteo(manifest, folder, kept)
    dense = (one.model_copy(update={"identity": one.identity or numbers.get(one.name)}) for one in manifest.dense)
    categorical = (one.model_copy(update={"identity": one.identity or tokens.get(one.name)}) for one in manifest.categorical)
    return manifest.model_copy(update={"dense": tuple(dense), "categorical": tuple(categorical)})


def _holds(folder: str, manifest: Manifest) -> bool:
    """Whether the data set in `folder` is the manifest's. Equal shards are not enough: they hold ids, which are other tokens' elsewhere."""
    if not folder or not PATHS.exists(join(folder, FILE)):
        return False
    try:
        return load_manifest(folder) == manifest
    except UserError:
        return False


def _of_log(manifest: Manifest, folder: str, kept: bool) -> tuple[dict[str, NumberIdentity], dict[str, TokenIdentity]]:
    from dmoe.data.log.described import identities
    from dmoe.data.log.kept import load_kept
    from dmoe.data.log.schema import parse_schema

    where = f"{join(folder, FILE)}: made_by"
    schema = parse_schema(manifest.made_by["schema"], f"{where}.schema")
    vocabularies = load_kept(folder).vocabularies if kept else []
    digests = {one.name: tokens_digest(one.tokens) for one in vocabularies}
    try:
        return identities(schema, manifest.made_by, digests)
    except ValueError as error:
        raise UserError(f"{where}: {str(error).splitlines()[0][:150]}; copy the data set again") from None


def _of_criteo(manifest: Manifest, folder: str, kept: bool) -> tuple[dict[str, NumberIdentity], dict[str, TokenIdentity]]:
    from dmoe.data.described import token_identity
    from dmoe.data.vocabulary import read_kept

    hashed = manifest.made_by.get("ids") == "hash"
    vocabularies = read_kept(folder, manifest) if kept and not hashed else []
    digests = {one.name: tokens_digest(one.tokens) for one in vocabularies}
    return (
        {name: NumberIdentity() for name in INTEGERS},
        {name: token_identity(name, digests.get(name), hashed) for name in CATEGORICAL},
    )
