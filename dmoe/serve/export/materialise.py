"""Applies deltas: makes the full scorer of a version from the last full one and the deltas after it.

Shapes: N rows that differ, C columns of all table sets, S table sets, R rows of a feature.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.checkpoint.tensors import TensorFile, write_tensors
from dmoe.data.dataset.files import file_sha256
from dmoe.data.prepare.count.vocabulary import Vocabulary, read_vocabulary, write_vocabulary
from dmoe.errors import UserError
from dmoe.serve.export.delta import CHUNK_ROWS, DELTA, FIRST_ID, ROWS, WHOLE, DeltaFile, copy_file, form_of, read_delta, vocabularies_of
from dmoe.serve.export.format import DTYPES, FILE, TABLES, ScorerFile, read_scorer_file, write_scorer_file
from dmoe.storage.paths import PATHS, inside, join, write_atomic

MOST_DELTAS = 10_000


@dataclass(frozen=True)
class _Link:
    """An opened delta of a chain."""

    about: DeltaFile
    folder: str
    rows: TensorFile


def materialise(folder: str, output: str, have: Mapping[str, str] | None = None) -> str:
    """Makes a full scorer in `output` from a chain of deltas. If the version is a full scorer already, writes nothing.

    Args:
        folder: folder of the version; its parents are beside it.
        output: an empty local folder.
        have: local full scorers that may be used as a start: SHA-256 of scorer.json -> folder.

    Returns:
        the folder of the full scorer: `output`, or that of the full version.

    Raises:
        UserError: a version of the chain is missing or damaged, or was not made from the parent that it names.
    """
    links: list[_Link] = []
    place, expected = folder.rstrip("/"), ""
    while True:
        if expected in (have or {}):
            base = (have or {})[expected]
            break
        about = read_delta(place)
        if expected:
            made = about.scorer_sha256 if about else file_sha256(join(place, FILE)) if PATHS.exists(join(place, FILE)) else ""
            if made != expected:
                raise UserError(f"{place}: is not the version that {links[-1].folder} was made from; publish a full one")
        if about is None:
            base = place
            break
        for name, digest in about.files.items():
            if not PATHS.exists(inside(place, name)) or file_sha256(join(place, name)) != digest:
                raise UserError(f"{join(place, name)}: missing or damaged: its checksum is not the one in {DELTA}; publish it again")
        links.append(_Link(about, place, TensorFile(join(place, ROWS))))
        if len(links) > MOST_DELTAS:
            raise UserError(f"{folder}: more than {MOST_DELTAS:,} deltas behind a full version; publish a full one")
        place, expected = f"{place.rpartition('/')[0] or '.'}/{about.parent}", about.parent_sha256
    if not links:
        return base
    _apply(base, links[::-1], output)
    return output


def _apply(base: str, links: Sequence[_Link], output: str) -> None:
    """Applies a chain of deltas to a full scorer, in one pass over its rows."""
    about, newest = links[-1].about.scorer, links[-1].folder
    states = [read_scorer_file(base), *(link.about.scorer for link in links)]
    for state in states:
        if form_of(state) != form_of(about):
            raise UserError(f"{newest}: has another model than {base}; publish a full one")
    total = sum(one.cardinality for one in about.features)
    entries = [("rows", DTYPES[about.rows], (total, sum(about.set_dims)))]
    if about.rows == "int8":
        entries.append(("scale", "F32", (total, len(about.set_dims))))
    os.makedirs(output, exist_ok=True)
    opened = TensorFile(join(base, TABLES))
    with write_atomic(join(output, TABLES)) as file:
        chunks = (chunk for name, _, _ in entries for chunk in _overlaid(name, opened, states, [link.rows for link in links]))
        written = {TABLES: write_tensors(file, entries, chunks)[1]}
    for name in (one for one in WHOLE if one in about.files):
        copy_file(join(newest, name), join(output, name))
    for name in vocabularies_of(about):
        os.makedirs(os.path.dirname(join(output, name)), exist_ok=True)
        changes = [join(link.folder, name) for link in links if name in link.about.files]
        _make_vocabulary(name, join(base, name), changes, join(output, name))
    for name, digest in about.files.items():
        if (written.get(name) or file_sha256(join(output, name))) != digest:
            raise UserError(f"{newest}: gives another {name} than was published; publish a full version, or use the publisher's pyarrow")
    write_scorer_file(output, about)
    if file_sha256(join(output, FILE)) != links[-1].about.scorer_sha256:
        raise UserError(f"{newest}: gives another {FILE} than was published; publish a full version")


def _overlaid(name: str, base: TensorFile, states: Sequence[ScorerFile], links: Sequence[TensorFile]) -> Iterator[np.ndarray]:
    """Yields the rows of a tensor after all deltas, feature by feature, in chunks."""
    firsts = [np.concatenate([[0], np.cumsum([one.cardinality for one in state.features])]) for state in states]
    indexes = [link.rows("index") for link in links]
    values = [link.rows(name) for link in links]
    for number in range(len(states[-1].features)):
        rows = int(firsts[-1][number + 1] - firsts[-1][number])
        there = int(firsts[0][number + 1] - firsts[0][number])
        for low in range(0, rows, CHUNK_ROWS):
            high = min(low + CHUNK_ROWS, rows)
            old = base.rows(name, int(firsts[0][number]) + min(low, there), int(firsts[0][number]) + min(high, there))
            chunk = np.zeros((high - low, *old.shape[1:]), old.dtype)
            chunk[: len(old)] = old
            for first, index, value in zip(firsts[1:], indexes, values, strict=True):
                start, end = int(first[number]), int(first[number + 1])
                span = slice(*np.searchsorted(index, [start + low, min(start + high, end)]))
                chunk[index[span] - start - low] = value[span]
            yield chunk


def _make_vocabulary(name: str, base: str, changes: Sequence[str], path: str) -> None:
    """Writes a vocabulary in which each change, in order, has replaced or added its ids."""
    if not changes:
        copy_file(base, path)
        return
    held = read_vocabulary(base, name)
    tokens, counts = held.tokens, held.counts
    for change in changes:
        with PATHS.open(change, "rb") as file:
            table = pq.read_table(file)
        place = table["id"].to_numpy() - FIRST_ID
        size = max(len(tokens), int(place.max(initial=-1)) + 1)
        source = np.arange(size)
        source[place] = len(tokens) + np.arange(len(place))
        tokens = pa.concat_arrays([tokens, table["token"].combine_chunks().cast(tokens.type)]).take(pa.array(source))
        counts = np.concatenate([counts, table["count"].to_numpy()])[source]
    write_vocabulary(path, Vocabulary(name, tokens, counts))
