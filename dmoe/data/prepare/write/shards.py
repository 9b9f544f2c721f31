"""Stage 3: writes the rows of the parts as parquet shards.

The log is cut into ranges of a fixed number of rows. A range gives one shard to each split that has rows in it. After its shards are
written and renamed, a range gets a note, a JSON file: if the note exists, the range is finished. Shards therefore depend only on the
rows, not on blocks or workers.

Shapes: N rows of a batch.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import WEIGHT
from dmoe.data.prepare.engines.engine import Engine, run_tasks
from dmoe.data.prepare.split.negatives import Negatives
from dmoe.data.prepare.split.split_rules import NAMES
from dmoe.data.prepare.write.mapped_rows import Job, Mapped, map_rows
from dmoe.data.prepare.write.shard_writer import ShardWriter, joined
from dmoe.data.prepare.write.shuffle import ORDER, gather_shards, order_of, within
from dmoe.data.progress import Progress
from dmoe.json_text import format_json
from dmoe.storage.paths import write_text

TRAIN = NAMES[0]


@dataclass
class Range:
    """A finished range.

    Attributes:
        shards: (file, rows, positives, sha256) of each split's shard.
        missing: number of missing values of each dense feature.
        ids: (missing, rare, all) ids of each categorical feature.
        train_weight: weight of the rows, and of the positives, of the train split.
        left_out: negatives that were not kept.
        extent: [lowest, highest] value of each feature that is not multi-valued.
    """

    shards: dict[str, tuple[str, int, int, str]]
    missing: list[int]
    ids: list[list[int]]
    train_weight: tuple[float, float]
    left_out: int = 0
    extent: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the log, with those left out."""
        return sum(rows for _, rows, _, _ in self.shards.values()) + self.left_out


def _write_range(shared: tuple[Job, str], number: int) -> Iterator[Range]:
    """Writes the shards of range `number`, unless its note exists."""
    job, folder = shared
    note = os.path.join(folder, f"{number:06d}.json")
    if os.path.exists(note):
        with open(note) as file:
            yield Range(**json.load(file))
            return
    splitter, schema = job.tokens.splitter, job.tokens.schema
    begin = number * job.rows_per_shard
    end = min(begin + job.rows_per_shard, splitter.total)
    names = splitter.splitter.names
    shuffled = TRAIN if job.shuffle is not None else None
    writers = [ShardWriter(os.path.join(folder, f"{number:06d}-{name}"), job, name == shuffled) for name in names]
    left_out = 0
    assigned: tuple[int, NDArray[np.uint8]] = (-1, np.empty(0, np.uint8))
    with ExitStack() as files:
        for writer in writers:
            files.enter_context(writer.file)
        for part, batch, first in splitter.batches(job.stored, begin, end):
            if assigned[0] != part:
                assigned = part, splitter.assign(part)
            mapped, split_N = map_rows(job, batch), assigned[1][first : first + batch.num_rows]
            if job.negatives:
                split_N, dropped = _sampled(job.negatives, mapped, split_N, int(splitter.firsts[part]) + first)
                left_out += dropped
            if job.shuffle is not None:
                order_N = order_of(job.shuffle, int(splitter.firsts[part]) + first, batch.num_rows)
                mapped.scalars[ORDER] = np.arange(batch.num_rows), order_N
            for place, writer in enumerate(writers):
                writer.add(mapped, np.flatnonzero(split_N == place))
        closed = {name: writer.close() for name, writer in zip(names, writers, strict=True)}
    done = Range(
        {name: shard for name, shard in closed.items() if shard},
        [sum(writer.missing[one.name] for writer in writers) for one in schema.dense],
        [np.sum([writer.ids[one.name] for writer in writers], axis=0).tolist() for one in schema.categorical],
        writers[0].weight(),
        left_out,
        joined(writer.extent for writer in writers),
    )
    write_text(note, format_json(vars(done)), sync=False)
    yield done


def _sampled(negatives: Negatives, mapped: Mapped, split_N: NDArray[np.uint8], first: int) -> tuple[NDArray[np.uint8], int]:
    """Samples the negatives of the train split, and changes their weights in `mapped`.

    Returns:
        The split of each row, len(NAMES) for a row that is left out; and the number of such rows.
    """
    train_N, label_N = split_N == 0, mapped.scalars["label"][1]
    out_N = train_N & ~negatives.kept(label_N, first)
    codes, weight_N = mapped.scalars[WEIGHT]
    mapped.scalars[WEIGHT] = codes, np.where(train_N, negatives.weights(label_N, weight_N), weight_N)
    return np.where(out_N, np.uint8(len(NAMES)), split_N), int(out_N.sum())


def write_shards(job: Job, folder: str, engine: Engine, limit: int) -> list[Range]:
    """Writes the shards of all ranges that are not finished yet to `folder`, and returns all ranges in order.

    Args:
        limit: approximate bytes of the rows that may be in memory for the shuffle.
    """
    os.makedirs(folder, exist_ok=True)
    if job.shuffle is not None:
        engine = within(engine, min(job.rows_per_shard, job.tokens.splitter.total), job.row_bytes, limit)
    total = job.tokens.splitter.total
    progress = Progress("write", total_rows=total)
    numbers = range(-(-total // job.rows_per_shard))
    ranges = list(run_tasks(engine, _write_range, (job, folder), numbers, lambda done: progress.update(rows=done.rows)))
    progress.close()
    if job.shuffle is None:
        return ranges
    files = [done.shards.pop(TRAIN) for done in ranges if TRAIN in done.shards]
    shards = gather_shards(files, folder, job.rows_per_shard, job.row_group_rows, job.many, engine)
    # There are at most as many shuffled shards as ranges.
    for done, shard in zip(ranges, shards, strict=False):
        done.shards[TRAIN] = shard
    return ranges
