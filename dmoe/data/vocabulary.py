"""Stage 2: the vocabulary of every categorical feature, counted over the train split in bounded memory (dmoe.data.counting).

Ids: 0 missing, 1 rare, then 2, 3, ... by count descending, token ascending; tokens that a later data set appends come behind.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmoe.data import spread_counts
from dmoe.data.counting import Pass, Rows, all_features, in_passes
from dmoe.data.criteo import BUCKETS, CATEGORICAL
from dmoe.data.dataset.manifest import RARE_ID, Manifest
from dmoe.data.engine import Engine, run_tasks
from dmoe.data.progress import Progress
from dmoe.data.vocabulary_files import read_all, read_table
from dmoe.errors import UserError


@dataclass
class Vocabulary:
    """Tokens that have an id of their own, in the order of ids: tokens[i] (int64, counted `counts[i]` times) has id 2 + i.

    A token is the hex value of a C column's, and a bucket's number (dmoe.data.criteo.bucket) of an I column.
    """

    name: str
    tokens: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def cardinality(self) -> int:
        return RARE_ID + 1 + len(self.tokens)


def count(rows: Rows, min_count: int, memory_limit: int, engine: Engine, folder: str, rows_a_batch: int) -> list[Vocabulary]:
    """Counts the tokens of the train split and gives ids to those that occur at least `min_count` times.

    Args:
        memory_limit: bytes for the tables of counts, about; of a far engine, for each task's.
        folder: for the counts of a far engine's tasks, each of `rows_a_batch` rows or more.

    Returns:
        The vocabularies in the order of CATEGORICAL.
    """
    if engine.far:
        kept = spread_counts.count(rows, rows_a_batch, min_count, memory_limit, engine, folder)
    else:
        kept = {feature: [] for feature in all_features()}
        in_passes(
            all_features(),
            memory_limit,
            lambda run, number: _one_pass(rows, run, number, engine),
            lambda feature, one: kept[feature].append(one.at_least(min_count)),
        )
    return [_ordered(feature, kept[feature]) for feature in kept]


def _one_pass(rows: Rows, run: Pass, number: int, engine: Engine) -> None:
    progress = Progress("count" if number == 1 else f"count, pass {number}", total_rows=sum(part.rows for part in rows.parts))
    for _ in run_tasks(engine, _count_part, (rows, run), range(len(rows.parts)), lambda counted: progress.update(rows=counted)):
        pass
    progress.close()


def _count_part(shared: tuple[Rows, Pass], number: int) -> Iterator[int]:
    rows, run = shared
    rows.count(run, number)
    yield rows.parts[number].rows


def _ordered(feature: int, pieces: list[tuple[NDArray[np.uint32], NDArray[np.int64]]]) -> Vocabulary:
    bare, counts = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    is_bucket = feature >= len(CATEGORICAL) - len(BUCKETS)
    tokens = (bare.view(np.int32) if is_bucket else bare).astype(np.int64)
    order = np.lexsort((tokens, -counts))
    return Vocabulary(CATEGORICAL[feature], tokens[order], counts[order])


def append_tokens(kept: Vocabulary, counted: Vocabulary) -> Vocabulary:
    """`kept` with the tokens of `counted` that it lacks behind its own, in their order: every old id stays what it was.

    A token's count stays that of the run that gave it its id.
    """
    new = ~np.isin(counted.tokens, kept.tokens)
    return Vocabulary(kept.name, np.concatenate([kept.tokens, counted.tokens[new]]), np.concatenate([kept.counts, counted.counts[new]]))


def digest(vocabularies: list[Vocabulary]) -> str:
    """sha256 over all names, tokens and counts (int64, little-endian) in the order of ids."""
    out = hashlib.sha256()
    for vocabulary in vocabularies:
        out.update(f"{vocabulary.name} {len(vocabulary.tokens)}\n".encode())
        out.update(vocabulary.tokens.astype("<i8").tobytes())
        out.update(vocabulary.counts.astype("<i8").tobytes())
    return out.hexdigest()


def read_vocabulary(path: str, name: str) -> Vocabulary:
    """Reads what dmoe.data.vocabulary_files wrote, from anywhere."""
    table = read_table(path, integers=True)
    return Vocabulary(name, table["token"].to_numpy(), table["count"].to_numpy())


def read_kept(folder: str, manifest: Manifest) -> list[Vocabulary]:
    """The vocabularies of a data set, whose ids another one is to share.

    Raises:
        UserError: they are missing, damaged, or not this manifest's.
    """
    names = [feature.name for feature in manifest.categorical]
    if manifest.dataset != "criteo" or names != list(CATEGORICAL):
        raise UserError(f"--vocabulary {folder}: a data set of '{manifest.dataset}', expected one of Criteo's columns")
    vocabularies = read_all(folder, manifest.categorical, read_vocabulary)
    if manifest.made_by.get("vocabulary_sha256") not in (None, digest(vocabularies)):
        raise UserError(f"{folder}: its vocabularies are not those that its manifest was written with; copy the whole data set again")
    return vocabularies
