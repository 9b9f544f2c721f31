"""Hashed ids: the number of rows of each table, and how many tokens share an id.

The number of distinct tokens is measured by a sketch: the KEPT smallest of their 64-bit hashes (k minimum values, Bar-Yossef et al.
2002). It is exact below KEPT tokens, and has a relative standard error of 1 / sqrt(KEPT) above.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.prepare.engines.engine import Engine, run_tasks
from dmoe.data.prepare.schema import Categorical
from dmoe.data.progress import Progress
from dmoe.errors import UserError, nearest
from dmoe.names import whole_number

FIRST_ID = RARE_ID + 1
BUCKET_SIZE = 4096
"""Most rows of the table of a bucket feature or a part of the time, unless the user names a size: it has a few hundred tokens."""
KEPT = 1 << 13

Read = Callable[[int], Iterator[dict[str, NDArray[np.uint64]]]]


def parse_sizes(text: str, features: Sequence[Categorical]) -> dict[str, int]:
    """Parses `1000000` or `1000000,C6=5000,I1_bucket=64` into the rows of each feature's table, in the order of the features.

    Raises:
        UserError: not a number, an unknown feature, or a table without room for an id.
    """
    default, named, names = None, {}, [one.name for one in features]
    for part in text.split(","):
        name, _, size = part.strip().rpartition("=")
        rows = whole_number(size)
        if rows is None or not FIRST_ID < rows < 2**31:
            raise UserError(f"--hash-size '{part.strip()}': expected {FIRST_ID + 1} .. {2**31 - 1} rows, as in 1000000,C6=5000")
        if not name:
            default = rows
        elif name in names:
            named[name] = rows
        else:
            raise UserError(f"--hash-size {name}: no such feature{nearest(name, names)}")
    if default is None and len(named) < len(names):
        raise UserError(f"--hash-size {text}: expected a size for the other features first, as in 1000000,C6=5000")
    size_of = {one.name: min(default or 0, BUCKET_SIZE) if one.bucket or one.part else default or 0 for one in features}
    return size_of | named


@dataclass(frozen=True)
class Collisions:
    """The number of distinct tokens of a feature, and of the ids that they got. Estimates if there are KEPT tokens or more."""

    tokens: int
    ids: int

    @property
    def rate(self) -> float:
        """The collision rate, 1 - ids / tokens."""
        return 1 - self.ids / self.tokens if self.tokens else 0.0


def collisions_of(smallest: NDArray[np.uint64], size: int) -> Collisions:
    """Collisions in a table of `size` rows: exact if the sketch holds all tokens, else the expectation for random ids."""
    slots = size - FIRST_ID
    if len(smallest) < KEPT:
        return Collisions(len(smallest), len(np.unique(smallest % np.uint64(slots))))
    tokens = round((KEPT - 1) / (int(smallest[-1]) / 2**64))
    return Collisions(tokens, min(tokens, round(slots * -np.expm1(-tokens / slots))))


def measure(read: Read, rows_of: Sequence[int], sizes: dict[str, int], engine: Engine) -> dict[str, Collisions]:
    """Measures the collisions of each feature over the rows of all splits.

    Args:
        read: yields the hashes of the distinct tokens of part i for each feature, a batch of rows at a time.
        rows_of: number of rows of each part.
    """
    progress = Progress("measure", total_rows=sum(rows_of))
    sketches = {name: np.zeros(0, np.uint64) for name in sizes}
    for _, found in run_tasks(engine, _sketch, (read, list(rows_of)), range(len(rows_of)), lambda one: progress.update(rows=one[0])):
        _add(sketches, found)
    progress.close()
    return {name: collisions_of(sketches[name], size) for name, size in sizes.items()}


def _add(sketches: dict[str, NDArray[np.uint64]], found: dict[str, NDArray[np.uint64]]) -> None:
    for name, hash_of in found.items():
        kept = sketches.get(name, hash_of[:0])
        if len(kept) == KEPT:
            hash_of = hash_of[hash_of < kept[-1]]
        if len(hash_of) > KEPT:
            hash_of = np.partition(hash_of, KEPT - 1)[:KEPT]
        if len(hash_of):
            sketches[name] = np.unique(np.concatenate([kept, hash_of]))[:KEPT]


def _sketch(shared: tuple[Read, list[int]], number: int) -> Iterator[tuple[int, dict[str, NDArray[np.uint64]]]]:
    read, rows_of = shared
    sketches: dict[str, NDArray[np.uint64]] = {}
    for found in read(number):
        _add(sketches, found)
    yield rows_of[number], sketches
