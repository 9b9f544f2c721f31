"""From raw Criteo logs to a data set: parse once, count, map and write, each stage restartable; see stage, vocabulary, shards.

The work lies in `OUTPUT/.work`, or where --work says, until the data set is whole. Its folders are named by a hash of what decides
their contents, so that the same command continues and another one does not mix with it.
"""

import hashlib
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.data.bad_lines import BadLines, all_rejects
from dmoe.data.counting import Rows
from dmoe.data.criteo import CATEGORICAL
from dmoe.data.dataset.identity import tokens_digest
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.described import build_manifest, describe_run
from dmoe.data.engine import Engine, open_engine
from dmoe.data.hashing import Collisions, HashMapper, measure, parse_sizes
from dmoe.data.inputs import Input, find_inputs, spooled_input
from dmoe.data.lock import alone
from dmoe.data.options import Options, check_options, deciding
from dmoe.data.output_folder import finished_before, refuse_other_than_stdin
from dmoe.data.publish import publish, set_aside
from dmoe.data.raw_file import check_unchanged
from dmoe.data.shards import IdMapper, Job, Mapper, write_shards
from dmoe.data.sources import spool
from dmoe.data.split import Splitter, day_cuts, parse_shares
from dmoe.data.stage import Part, stage
from dmoe.data.vocabulary import Vocabulary, append_tokens, count, digest, read_kept, read_vocabulary
from dmoe.data.vocabulary_files import write_all
from dmoe.errors import UserError
from dmoe.json_text import format_json

__all__ = ["Options", "Result", "preprocess"]

FORMAT_OF_WORK = 2


@dataclass
class Result:
    """What a run did, for its summary. `days` are (rows, clicks) of each input; `collisions` by feature, of hashed ids."""

    manifest: Manifest
    bad_lines: Counter[str]
    lines: int
    size: int
    seconds: float
    already_there: bool = False
    stages: dict[str, float] = field(default_factory=dict)
    collisions: dict[str, Collisions] = field(default_factory=dict)
    appended: int = 0


def _hash(*parts: object) -> str:
    return hashlib.sha256(format_json([FORMAT_OF_WORK, *parts]).encode()).hexdigest()[:16]


def preprocess(options: Options) -> Result:
    """Makes a data set from raw logs, or continues a run that was killed.

    Raises:
        UserError: a mistake in the options or in the input, in one line.
    """
    began = time.monotonic()
    check_options(options)
    if not options.from_stdin:
        return _start(options, find_inputs(options.inputs, options.scoring), began)
    refuse_other_than_stdin(options)
    with alone(options.work_folder, options.output):
        return _start(options, [spooled_input(*spool(options.work_folder), options.scoring)], began)


@dataclass
class _Task:
    """A run whose inputs are known. `kept` are the vocabularies of --vocabulary; `sizes` those of hashed ids."""

    options: Options
    inputs: list[Input]
    deciding: dict[str, Any]
    kept: list[Vocabulary] | None
    sizes: dict[str, int] | None
    fingerprint: str = ""


def _start(options: Options, inputs: list[Input], began: float) -> Result:
    if not inputs[0].layout.labelled and not options.scoring:
        raise UserError(
            f"{inputs[0].path}: no label column (39 fields a line); training data needs one, --scoring makes data to score without"
        )
    task = _Task(options, inputs, deciding(options), None, None)
    decide: dict[str, Any] = dict(task.deciding)
    if options.vocabulary:
        manifest = load_manifest(options.vocabulary)
        if manifest.made_by.get("ids") == "hash":
            if options.new_tokens == "append":
                raise UserError(f"--vocabulary {options.vocabulary}: has hashed ids, to which none can be appended")
            task.sizes = {feature.name: feature.cardinality for feature in manifest.categorical}
        else:
            task.kept = read_kept(options.vocabulary, manifest)
        decide["vocabulary"] = task.sizes or digest(task.kept or [])
    elif options.hash_size is not None:
        task.sizes = parse_sizes(options.hash_size)
    task.fingerprint = _hash([one.known_by for one in inputs], decide)
    if old := finished_before(options, task.fingerprint):
        return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
    if options.from_stdin:
        return _run(task, began)
    with alone(options.work_folder, options.output):
        return _run(task, began)


def parts_folder(options: Options, inputs: list[Input]) -> str:
    """Where the parts of these inputs lie, whoever parses them. Those for scoring hold rows with any label."""
    how = ["scoring"] if options.scoring else []
    return os.path.join(options.work_folder, f"parts-{_hash([one.known_by for one in inputs], options.block_bytes, *how)}")


def _run(task: _Task, began: float) -> Result:
    with open_engine(task.options.engine, task.options.workers, task.options.ray_address) as engine:
        return _run_stages(task, engine, began)


def _run_stages(task: _Task, engine: Engine, began: float) -> Result:
    options, inputs, work = task.options, task.inputs, task.options.work_folder
    size = sum(one.size for one in inputs)
    workers = f"{engine.workers}{' Ray' * (options.engine == 'ray')} workers"
    print(f"{len(inputs)} file{'s' * (len(inputs) != 1)}, {size / 1e6:,.1f} MB, {workers}", file=sys.stderr)
    stages = {}

    begin = time.monotonic()
    watch = BadLines(inputs, options.max_bad_share)
    parts = stage(inputs, parts_folder(options, inputs), options.block_bytes, engine, watch.add)
    check_unchanged(inputs)
    rejects = ((one.path, all_rejects(inputs, parts, number)) for number, one in enumerate(inputs))
    bad_lines = set_aside(options.output, work, rejects, watch)
    total = sum(part.rows for part in parts)
    if not total:
        raise UserError(f"--input {' '.join(options.inputs)}: no well-formed line among {watch.lines:,}")
    stages["parse"] = time.monotonic() - begin

    begin = time.monotonic()
    splitter = _splitter(options, inputs, parts)
    vocabularies = _vocabularies(task, parts, splitter, engine)
    collisions = measure(parts, task.sizes, engine, _far_folder(task, "seen")) if task.sizes else {}
    stages["measure" if task.sizes else "count"] = time.monotonic() - begin

    begin = time.monotonic()
    mapper: IdMapper = HashMapper(task.sizes) if task.sizes else Mapper(vocabularies)
    unlabelled = sum(part.unlabelled for part in parts)
    if unlabelled:
        print(f"{unlabelled:,} of {total:,} rows have no label 0 or 1: scored without labels", file=sys.stderr)
    labelled = inputs[0].layout.labelled and not unlabelled
    job = Job(parts, splitter, mapper, options.rows_per_shard, options.row_group_rows, labelled)
    ranges = write_shards(job, os.path.join(work, f"shards-{task.fingerprint}"), engine)
    made_by = describe_run(task.deciding, inputs, parts, task.fingerprint, watch.lines, bad_lines, labelled)
    if vocabularies:
        made_by["vocabulary_sha256"] = digest(vocabularies)
    if collisions:
        made_by["collisions"] = {name: {"tokens": one.tokens, "ids": one.ids} for name, one in collisions.items()}
    digests = None if task.sizes else {one.name: tokens_digest(one.tokens) for one in vocabularies}
    manifest = build_manifest(ranges, mapper.cardinalities, splitter.names, job.labelled, made_by, digests)
    publish(options.output, work, manifest, ranges, vocabularies)
    stages["write"] = time.monotonic() - begin
    appended = sum(len(vocabulary.tokens) for vocabulary in vocabularies) - sum(len(one.tokens) for one in task.kept or vocabularies)
    return Result(manifest, bad_lines, watch.lines, size, time.monotonic() - began, False, stages, collisions, appended)


def _splitter(options: Options, inputs: list[Input], parts: list[Part]) -> Splitter:
    shares = parse_shares(options.split)
    if options.scoring:
        return Splitter(shares, "score", 0)
    if options.split_by != "day":
        return Splitter(shares, options.split_by, options.seed)
    rows = [0] * len(inputs)
    for part in parts:
        rows[part.input] += part.rows
    return Splitter(shares, "day", 0, day_cuts(rows, options.validation_days, options.test_days))


def _vocabularies(task: _Task, parts: list[Part], splitter: Splitter, engine: Engine) -> list[Vocabulary]:
    """Keeps the vocabularies that are given, or counts them, or reads them where a killed run had counted them."""
    options = task.options
    if task.sizes:
        return []
    if task.kept and options.new_tokens == "rare":
        return task.kept
    folder = os.path.join(options.work_folder, f"vocabulary-{task.fingerprint}")
    if os.path.isdir(folder):
        return [read_vocabulary(os.path.join(folder, f"{name}.parquet"), name) for name in CATEGORICAL]
    total = sum(part.rows for part in parts)

    rows = Rows(parts, np.cumsum([0] + [part.rows for part in parts]).tolist(), partial(_train_rows, splitter, total))
    vocabularies = count(rows, options.min_count, options.memory_limit, engine, _far_folder(task, "counts"), options.rows_per_shard)
    if task.kept:
        vocabularies = [append_tokens(kept, counted) for kept, counted in zip(task.kept, vocabularies, strict=True)]
    write_all(folder, vocabularies)
    return vocabularies


def _train_rows(splitter: Splitter, total: int, first: int, rows: int) -> NDArray[np.uint8]:
    return (splitter.assign(first, rows, total) == 0).astype(np.uint8)


def _far_folder(task: _Task, name: str) -> str:
    """For files that are named by the parts' numbers, which depend on the blocks."""
    return os.path.join(task.options.work_folder, f"{name}-{_hash(task.fingerprint, task.options.block_bytes)}")
