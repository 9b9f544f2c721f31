"""Vocabularies as files of a data set: `vocabulary/C1.parquet` with the columns token, id and count, in the order of ids."""

import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import RARE_ID, CategoricalFeature
from dmoe.errors import UserError
from dmoe.names import file_name
from dmoe.paths import join, write_atomic

FOLDER = "vocabulary"


class AnyVocabulary(Protocol):
    """Tokens that have an id of their own, in the order of ids: tokens[i], counted counts[i] times, has id 2 + i."""

    name: str
    tokens: Any
    counts: NDArray[np.int64]

    @property
    def cardinality(self) -> int: ...


Found = TypeVar("Found", bound=AnyVocabulary)


def write_vocabulary(path: str, vocabulary: AnyVocabulary) -> None:
    """Writes token (int64 or binary), id (int32) and count (int64), atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = np.arange(RARE_ID + 1, vocabulary.cardinality, dtype=np.int32)
    table = pa.table({"token": vocabulary.tokens, "id": ids, "count": vocabulary.counts})
    with write_atomic(path, sync=False) as file:
        pq.write_table(table, file, compression="zstd", compression_level=1, use_dictionary=False)


def vocabulary_file(folder: str, feature: str) -> str:
    """Where a data set keeps a feature's vocabulary."""
    return join(folder, FOLDER, f"{file_name(feature)}.parquet")


def write_all(folder: str, vocabularies: Sequence[AnyVocabulary]) -> None:
    """Writes a folder of vocabularies, which is there only when all of it is."""
    shutil.rmtree(folder + ".tmp", ignore_errors=True)
    os.makedirs(folder + ".tmp")
    for vocabulary in vocabularies:
        write_vocabulary(os.path.join(folder + ".tmp", f"{file_name(vocabulary.name)}.parquet"), vocabulary)
    os.replace(folder + ".tmp", folder)


def read_all(folder: str, features: Sequence[CategoricalFeature], read: Callable[[str, str], Found]) -> list[Found]:
    """The vocabularies that the data set in `folder` keeps.

    Args:
        read: of (path, feature's name).

    Raises:
        UserError: one is missing, damaged, or not of as many ids as the manifest says.
    """
    import pyarrow as pa

    vocabularies = []
    for feature in features:
        path = vocabulary_file(folder, feature.name)
        try:
            vocabulary = read(path, feature.name)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise UserError(f"--vocabulary {path}: cannot be read ({(str(error).splitlines() or ['?'])[0][:150]})") from None
        if vocabulary.cardinality != feature.cardinality:
            raise UserError(f"--vocabulary {path}: {vocabulary.cardinality:,} ids, its manifest says {feature.cardinality:,}")
        vocabularies.append(vocabulary)
    return vocabularies
