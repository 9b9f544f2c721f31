"""From raw Criteo logs to a data set: parse once, count, map and write, each stage restartable; see stage, vocabulary, shards.

The work lies in `OUTPUT/.work` until the data set is whole. Its folders are named by a hash of what decides their contents, so that
the same command continues and another one does not mix with it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dmoe.data.bad_lines import BadLines, all_rejects
from dmoe.data.criteo import CATEGORICAL
from dmoe.data.inputs import Input, find_inputs
from dmoe.data.manifest import FILE, Manifest, load_manifest
from dmoe.data.publish import REJECTS, build_manifest, describe_run, move_rejects, publish
from dmoe.data.rejects import write_rejects
from dmoe.data.shards import Mapper, write_shards
from dmoe.data.split import NAMES, Splitter, parse_shares
from dmoe.data.stage import Part, stage
from dmoe.data.vocabulary import Vocabulary, count, read_vocabulary, write_vocabulary
from dmoe.errors import UserError

WORK, FORMAT_OF_WORK = ".work", 1


@dataclass(frozen=True)
class Options:
    """What decides the data set's bytes, then what does not: block_bytes, workers, memory_limit, overwrite, max_bad_share."""

    inputs: list[str]
    output: str
    min_count: int = 10
    split: str = "0.8,0.1,0.1"
    split_by: Literal["random", "time"] = "random"
    seed: int = 0
    rows_per_shard: int = 524_288
    row_group_rows: int = 32_768
    max_bad_share: float = 0.001
    block_bytes: int = 8 << 20
    workers: int = 0
    memory_limit: int = 512 << 20
    overwrite: bool = False


@dataclass
class Result:
    """What a run did, for its summary."""

    manifest: Manifest
    bad_lines: Counter[str]
    lines: int
    size: int
    seconds: float
    already_there: bool = False
    stages: dict[str, float] = field(default_factory=dict)


def _check_options(options: Options) -> None:
    for name, lowest in (("min_count", 1), ("rows_per_shard", 1), ("row_group_rows", 1), ("block_bytes", 1)):
        if getattr(options, name) < lowest:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected {lowest} or more")
    if options.workers < 0:
        raise UserError(f"--workers is {options.workers}, expected 1 or more, or 0 for one a core")
    if not 0 <= options.max_bad_share <= 1:
        raise UserError(f"--max-bad-share is {options.max_bad_share}, expected 0 .. 1")


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps([FORMAT_OF_WORK, *parts]).encode()).hexdigest()[:16]


def _deciding(options: Options) -> dict[str, Any]:
    shares = [str(share) for share in parse_shares(options.split)]
    names = ("min_count", "split_by", "seed", "rows_per_shard", "row_group_rows")
    return {"split": ",".join(shares), **{name: getattr(options, name) for name in names}}


def preprocess(options: Options) -> Result:
    """Makes a data set from raw logs, or continues a run that was killed.

    Raises:
        UserError: a mistake in the options or in the input, in one line.
    """
    began = time.monotonic()
    _check_options(options)
    deciding = _deciding(options)
    inputs = find_inputs(options.inputs)
    if not inputs[0].layout.labelled:
        raise UserError(f"{inputs[0].path}: no label column (39 fields a line); training data needs one")
    files = [[one.path, one.size, one.changed] for one in inputs]
    fingerprint = _hash(files, deciding)
    if os.path.exists(os.path.join(options.output, FILE)) and not options.overwrite:
        old = load_manifest(options.output)
        if old.made_by.get("fingerprint") == fingerprint:
            shutil.rmtree(os.path.join(options.output, WORK), ignore_errors=True)
            return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
        raise UserError(f"--output {options.output}: holds another data set; name another folder, or replace it with --overwrite")
    work = os.path.join(options.output, WORK)
    os.makedirs(work, exist_ok=True)
    with _alone(work, options.output):
        return _run(options, deciding, inputs, fingerprint, began)


@contextmanager
def _alone(work: str, output: str) -> Iterator[None]:
    """Keeps a second run off the same output. The lock goes with the process, however it ends."""
    with open(os.path.join(work, "lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--output {output}: another run is writing there; wait for it or name another folder") from None
        yield


def _run(options: Options, deciding: dict[str, Any], inputs: list[Input], fingerprint: str, began: float) -> Result:
    files = [[one.path, one.size, one.changed] for one in inputs]
    work = os.path.join(options.output, WORK)
    workers = options.workers or os.cpu_count() or 1
    size = sum(one.size for one in inputs)
    print(f"{len(inputs)} file{'s' * (len(inputs) != 1)}, {size / 1e6:,.1f} MB, {workers} workers", file=sys.stderr)
    stages = {}

    begin = time.monotonic()
    watch = BadLines(inputs, options.max_bad_share)
    parts = stage(inputs, os.path.join(work, f"parts-{_hash(files, options.block_bytes)}"), options.block_bytes, workers, watch.add)
    bad_lines: Counter[str] = Counter()
    shutil.rmtree(os.path.join(work, REJECTS), ignore_errors=True)
    for number, one in enumerate(inputs):
        bad_lines += write_rejects(os.path.join(work, REJECTS), number, one.path, all_rejects(inputs, parts, number))
    try:
        watch.finish()
    except UserError as error:
        kept = os.path.join(work, REJECTS)
        if not os.path.exists(os.path.join(options.output, FILE)):
            move_rejects(options.output, work)
            kept = os.path.join(options.output, REJECTS)
        raise UserError(f"{error}; bad lines are kept in {kept}") from None
    total = sum(part.rows for part in parts)
    if not total:
        raise UserError(f"--input {' '.join(options.inputs)}: no well-formed line among {watch.lines:,}")
    stages["parse"] = time.monotonic() - begin

    begin = time.monotonic()
    splitter = Splitter(parse_shares(options.split), options.split_by, options.seed)
    vocabularies = _vocabularies(os.path.join(work, f"vocabulary-{fingerprint}"), parts, splitter, total, options, workers)
    stages["count"] = time.monotonic() - begin

    begin = time.monotonic()
    shards = os.path.join(work, f"shards-{fingerprint}")
    mapper = Mapper(vocabularies)
    ranges = write_shards(parts, shards, NAMES, splitter, mapper, options.rows_per_shard, options.row_group_rows, workers)
    made_by = describe_run(deciding, inputs, fingerprint, watch.lines, bad_lines)
    manifest = build_manifest(ranges, vocabularies, total, made_by)
    publish(options.output, work, manifest, ranges, vocabularies)
    stages["write"] = time.monotonic() - begin
    return Result(manifest, bad_lines, watch.lines, size, time.monotonic() - began, stages=stages)


def _vocabularies(folder: str, parts: list[Part], splitter: Splitter, total: int, options: Options, workers: int) -> list[Vocabulary]:
    """Counts the vocabularies, or reads them where a killed run had counted them."""
    if os.path.isdir(folder):
        return [read_vocabulary(os.path.join(folder, f"{name}.parquet"), name) for name in CATEGORICAL]

    def train_rows(first: int, rows: int) -> NDArray[np.uint8]:
        return (splitter.assign(first, rows, total) == 0).astype(np.uint8)

    vocabularies = count(parts, train_rows, options.min_count, options.memory_limit, workers)
    shutil.rmtree(folder + ".tmp", ignore_errors=True)
    os.makedirs(folder + ".tmp")
    for vocabulary in vocabularies:
        write_vocabulary(os.path.join(folder + ".tmp", f"{vocabulary.name}.parquet"), vocabulary)
    os.replace(folder + ".tmp", folder)
    return vocabularies
