"""Computes the identities of features (`dmoe.data.dataset.identity`) for manifests of earlier versions, which do not hold them."""

from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity
from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest
from dmoe.data.dataset.vocabulary_files import file_of
from dmoe.errors import UserError, first_line
from dmoe.storage.paths import PATHS, join


def with_identities(manifest: Manifest, folder: str) -> Manifest:
    """The manifest with the identity of every feature, as far as it is known.

    A manifest that holds identities is returned unchanged. For an earlier one they are computed from `made_by` and from the vocabularies
    in `folder`. If a vocabulary is missing, `identity.tokens` is None; if the manifest is of an unknown program, `identity` is None.

    Args:
        folder: of the data set from which the manifest may have been copied. Its vocabularies are used only if its manifest is the same.

    Raises:
        UserError: a vocabulary is damaged or belongs to another manifest, or `made_by` is damaged.
    """
    if all(one.identity for one in manifest.dense) and all(one.identity for one in manifest.categorical):
        return manifest
    names = [one.name for one in manifest.categorical]
    kept = _holds(folder, manifest) and all(PATHS.exists(file_of(folder, name)) for name in names)
    numbers, tokens = _made(manifest, folder, kept)
    dense = (one.model_copy(update={"identity": one.identity or numbers.get(one.name)}) for one in manifest.dense)
    categorical = (one.model_copy(update={"identity": one.identity or tokens.get(one.name)}) for one in manifest.categorical)
    return manifest.model_copy(update={"dense": tuple(dense), "categorical": tuple(categorical)})


def _holds(folder: str, manifest: Manifest) -> bool:
    """Whether the data set in `folder` has this manifest. Equal shards are not enough, since their ids may stand for other tokens."""
    if not folder or not PATHS.exists(join(folder, FILE)):
        return False
    try:
        return load_manifest(folder) == manifest
    except UserError:
        return False


def _made(manifest: Manifest, folder: str, kept: bool) -> tuple[dict[str, NumberIdentity], dict[str, TokenIdentity]]:
    """The identities, from how the data set was made; empty if that is not known."""
    from dmoe.data.prepare.count.vocabulary import digest_of
    from dmoe.data.prepare.kept import kept_schema, load_kept
    from dmoe.data.prepare.write.manifest_building import identities

    known = isinstance(manifest.made_by.get("schema"), dict)
    try:
        schema = kept_schema(folder, manifest)
    except UserError:
        if known:
            raise
        return {}, {}
    vocabularies = load_kept(folder).vocabularies if kept else []
    try:
        return identities(schema, manifest.made_by, {one.name: digest_of(one.tokens) for one in vocabularies})
    except ValueError as error:
        raise UserError(f"{join(folder, FILE)}: made_by: {first_line(error, 150)}; copy the data set again") from None
