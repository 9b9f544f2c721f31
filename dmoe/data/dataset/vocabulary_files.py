"""Reads the vocabulary files of a data set: `vocabulary/C1.parquet` has the columns token, id and count, in the order of ids."""

from typing import Any

import numpy as np

from dmoe.data.dataset.identity import PIECE, TokenDigest
from dmoe.data.dataset.manifest import RARE_ID
from dmoe.errors import UserError, first_line
from dmoe.names import file_name
from dmoe.storage.paths import PATHS, join

FOLDER = "vocabulary"


def file_of(folder: str, feature: str) -> str:
    """The vocabulary file of a feature of the data set in `folder`."""
    return join(folder, FOLDER, f"{file_name(feature)}.parquet")


def read_table(path: str, integers: bool | None) -> Any:
    """Reads a vocabulary file as a pyarrow.Table of token, id and count.

    Args:
        integers: whether the tokens must be int64 (true) or binary (false); None for either.

    Raises:
        OSError, KeyError, pyarrow.ArrowException: the file is missing, damaged, or has other columns.
        UserError: the ids are not 2, 3, ... in order, or a column has another type or a null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with PATHS.open(path, "rb") as file:
        table = pq.read_table(file)
    _check_piece(path, table, 0)
    if integers is not None and pa.types.is_int64(table["token"].type) != integers:
        raise UserError(
            f"{path}: its tokens are {table['token'].type}, which does not fit a data set of this kind; copy the data set again"
        )
    if not pa.types.is_integer(table["count"].type) or table["count"].null_count:
        raise UserError(f"{path}: column count does not hold a whole number in every row; make the data set again")
    return table


def _check_piece(path: str, piece: Any, before: int) -> None:
    """Checks some rows of a vocabulary file. `before` is the number of rows before them."""
    import pyarrow as pa

    tokens, ids = piece["token"], piece["id"]
    if not (pa.types.is_int64(tokens.type) or pa.types.is_binary(tokens.type) or pa.types.is_large_binary(tokens.type)):
        raise UserError(f"{path}: column token is {str(tokens.type)[:40]}, expected int64 or binary; make the data set again")
    if tokens.null_count or ids.null_count:
        raise UserError(f"{path}: has a row without a token or an id; make the data set again")
    first = before + RARE_ID + 1
    if not pa.types.is_integer(ids.type) or not np.array_equal(ids.to_numpy(), np.arange(first, first + len(tokens))):
        raise UserError(f"{path}: its ids are not {RARE_ID + 1}, {RARE_ID + 2}, ... in order; make the data set again")


def read_digests(path: str, first: int) -> tuple[str, str, int]:
    """Reads a vocabulary file piece by piece, in constant memory.

    Returns:
        The digest of the first `first` tokens, the digest of all tokens, and their number.

    Raises:
        UserError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    digest = TokenDigest()
    prefix = digest.hexdigest()
    try:
        with PATHS.open(path, "rb") as file:
            for piece in pq.ParquetFile(file).iter_batches(PIECE, columns=["token", "id"], use_threads=False):
                _check_piece(path, piece, digest.count)
                tokens = piece["token"].to_numpy() if pa.types.is_int64(piece["token"].type) else piece["token"]
                cut = min(max(first - digest.count, 0), len(tokens))
                digest.add(tokens[:cut])
                if cut:
                    prefix = digest.hexdigest()
                digest.add(tokens[cut:])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(path, error) from None
    return prefix, digest.hexdigest(), digest.count


def unreadable(path: str, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read ({first_line(error, 150)}); copy it back or make the data set again")


def other_vocabulary(path: str) -> UserError:
    return UserError(f"{path}: its tokens are not those that the manifest beside it was written with; copy the whole data set again")
