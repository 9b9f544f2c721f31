"""The folder `inputs` of a scorer: schema, moments, bucket edges and vocabularies of the training data, which are needed for raw rows."""

import shutil
from typing import Any

from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.manifest import FILE, Manifest, save_manifest
from dmoe.data.dataset.vocabulary_files import FOLDER, file_of
from dmoe.data.prepare.kept import load_kept
from dmoe.errors import UserError
from dmoe.names import file_name
from dmoe.serve.encoding.row_encoder import RowEncoder
from dmoe.serve.export.format import ScorerFile
from dmoe.storage.paths import PATHS, join, write_atomic

INPUTS = "inputs"
KEPT_OF_MAKING = ("schema", "moments", "edges", "ids", "fingerprint", "vocabulary_sha256")


def write_inputs(manifest: Manifest, data: str, output: str) -> tuple[dict[str, str], str]:
    """Writes the folder `inputs` of a scorer.

    Args:
        manifest: manifest of the training data, from the run.
        data: folder of the training data, with its vocabularies.
        output: folder of the scorer.

    Returns:
        name -> SHA-256 of the files, and an empty text; or no files and the reason: the data set is missing, was changed, or has no schema.
    """
    folder = join(output, INPUTS)
    made_by: dict[str, Any] = {key: manifest.made_by[key] for key in KEPT_OF_MAKING if key in manifest.made_by}
    names = [FILE]
    try:
        PATHS.mkdirs(join(folder, FOLDER))
        save_manifest(folder, manifest.model_copy(update={"splits": {}, "made_by": made_by}))
        for feature in manifest.categorical if made_by.get("ids") != "hash" else ():
            if not PATHS.exists(file_of(data, feature.name)):
                raise UserError(f"{file_of(data, feature.name)}: no such file")
            with PATHS.open(file_of(data, feature.name), "rb") as source, write_atomic(file_of(folder, feature.name)) as target:
                shutil.copyfileobj(source, target)
            names.append(f"{FOLDER}/{file_name(feature.name)}.parquet")
        load_kept(folder)
    except UserError as error:
        for name in names:
            if PATHS.exists(join(folder, name)):
                PATHS.rm(join(folder, name))
        return {}, str(error)
    return {f"{INPUTS}/{name}": file_sha256(join(folder, name)) for name in names}, ""


def open_encoder(folder: str, about: ScorerFile) -> RowEncoder:
    """The encoder for raw rows of a scorer.

    Raises:
        UserError: the folder `inputs` is missing or damaged.
    """
    if not about.reads_raw_rows:
        raise UserError(
            f"{folder}: the scorer takes ids only: it was exported without its training data's vocabularies; export it again"
            " where the run's data set is"
        )
    kept = load_kept(join(folder, INPUTS))
    return RowEncoder(kept, about.dense, [feature.name for feature in about.features])
