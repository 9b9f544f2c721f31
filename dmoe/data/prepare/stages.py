"""The restartable stages of preparation: parse, count, write and publish.

The name of each intermediate folder contains a hash of everything that decides its contents. The same command therefore continues where
it stopped, and another command uses other folders.
"""

import hashlib
import os
import shutil
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from dmoe.data.dataset.manifest import Manifest
from dmoe.data.prepare.bad_lines import BadLines, NoRows
from dmoe.data.prepare.count.counting import count
from dmoe.data.prepare.count.hashed_sizes import Collisions, measure
from dmoe.data.prepare.count.train_numbers import train_moments, train_samples
from dmoe.data.prepare.count.vocabulary import Vocabulary, append_tokens, digest, ordered, read_vocabulary, write_all
from dmoe.data.prepare.encode.encode_rows import Seen
from dmoe.data.prepare.encode.labels import written_otherwise
from dmoe.data.prepare.engines.engine import Engine
from dmoe.data.prepare.kept import Kept
from dmoe.data.prepare.options import Options, deciding
from dmoe.data.prepare.parse.front_ends import front_for
from dmoe.data.prepare.rejects import shown
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.log_files import File, check_unchanged
from dmoe.data.prepare.split.negatives import Negatives
from dmoe.data.prepare.split.part_splitter import PartSplitter, Times
from dmoe.data.prepare.split.split_rules import Splitter, parse_shares
from dmoe.data.prepare.tokens.buckets import make_buckets, quantile_edges
from dmoe.data.prepare.tokens.token_columns import Tokens
from dmoe.data.prepare.tokens.token_ids import HashedIds, TokenIds
from dmoe.data.prepare.write.manifest_building import build_manifest, days_of, said_of_run
from dmoe.data.prepare.write.mapped_rows import Job
from dmoe.data.prepare.write.output_folder import publish, set_aside
from dmoe.data.prepare.write.parts import Part, parse_files
from dmoe.data.prepare.write.shard_writer import constants
from dmoe.data.prepare.write.shards import write_shards
from dmoe.errors import UserError
from dmoe.json_text import format_json
from dmoe.names import file_name, printable, show
from dmoe.processes.malloc import give_back_freed_memory
from dmoe.terminal import tell

FORMAT, FORMAT_OF_WORK = 3, 7
"""Versions of the fingerprint that data sets keep, and of the intermediate files. Intermediate files of another version are not used."""
VALUES_SHOWN = 6


@dataclass
class Result:
    """What a run did, for the summary.

    Attributes:
        size: bytes of the inputs.
        collisions: of each feature with hashed ids.
        appended: number of tokens that got ids after the kept ones.
    """

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
    return hashlib.sha256(format_json([FORMAT, *parts]).encode()).hexdigest()[:16]


def _dumped(schema: Schema) -> dict[str, Any]:
    return schema.model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True)
class Task:
    """A run whose input files are known.

    Attributes:
        kept: how the log of the data set of --vocabulary was read, if that option is given.
        sizes: rows of each feature's table, for hashed ids.
        read: the schema without the columns that the files lack and scoring does not need.
    """

    options: Options
    schema: Schema
    where: str
    dataset: str
    kept: Kept | None
    sizes: dict[str, int]
    files: list[File]
    read: Schema
    labelled: bool

    @property
    def of_schema(self) -> dict[str, Any]:
        return {"schema": _dumped(self.schema)}

    @property
    def deciding(self) -> dict[str, Any]:
        of = {"of": self.kept.fingerprint} if self.kept else {}
        hashed = {"ids": "hash"} if self.sizes else {}
        return deciding(self.options) | hashed | of

    @property
    def known_by(self) -> list[object]:
        return [one.known_by for one in self.files]

    @property
    def fingerprint(self) -> str:
        return _hash(self.known_by, self.deciding | self.of_schema)

    def folder(self, name: str, *decided_by: object) -> str:
        """An intermediate folder."""
        return os.path.join(self.options.work_folder, f"{name}-{_hash(FORMAT_OF_WORK, *(decided_by or [self.fingerprint]))}")


def run_stages(task: Task, engine: Engine, began: float) -> Result:
    options, work = task.options, task.options.work_folder
    size = sum(one.size for one in task.files)
    workers = f"{engine.workers}{' Ray' * (options.engine == 'ray')} workers"
    tell(f"{len(task.files)} file{'s' * (len(task.files) != 1)}, {size / 1e6:,.1f} MB, {workers}", files=len(task.files), bytes=size)
    stages, marked = {}, time.monotonic()

    def mark(name: str) -> None:
        nonlocal marked
        give_back_freed_memory()
        stages[name], marked = time.monotonic() - marked, time.monotonic()

    watch = BadLines(task.files, options.max_bad_share)
    folder = task.folder("parts", task.known_by, _dumped(task.read), task.labelled, options.scoring, options.block_bytes)
    parts = parse_files(task.files, front_for(task.read, task.labelled, options.scoring, options.block_bytes), folder, engine, watch.add)
    check_unchanged(task.files)
    bad_lines = set_aside(options.output, work, watch)
    if watch.lines == watch.bad:
        raise (UserError if watch.lines else NoRows)(f"--input {' '.join(options.inputs)}: no well-formed row among {watch.lines:,}")
    labelled, schema = _fitting(task, parts)
    mark("parse")
    splitter = _splitter(task, parts)
    moments, edges = _numbers(task, splitter)
    tokens = Tokens(schema, splitter, make_buckets(schema, edges))
    vocabularies = _vocabularies(task, tokens, engine)
    collisions = measure(tokens.hashes, tokens.rows_of, task.sizes, engine) if task.sizes else {}
    mark("measure" if task.sizes else "count")
    cardinalities = task.sizes or {one.name: one.cardinality for one in vocabularies}
    kinds = {one.name: one.type for one in schema.categorical}
    ids = {one.name: one.table(kinds[one.name]) for one in vocabularies} | {name: HashedIds(rows) for name, rows in task.sizes.items()}
    for name, one in ids.items():
        if isinstance(one, TokenIds) and (twice := one.numbers.twice):
            what = f"{twice:,} tokens write a whole number that another token writes too, such as 7.0 and 7, which have an id each"
            show(f"warning: {name}: {what}", sys.stderr)
    sampled = Negatives(options.negatives, options.seed) if options.negatives is not None else None
    shuffle = options.seed if options.shuffle else None
    job = Job(tokens, ids, cardinalities, moments, labelled, options.rows_per_shard, options.row_group_rows, sampled, shuffle)
    ranges = write_shards(job, task.folder("shards"), engine, options.memory_limit)
    made_by = task.of_schema | {"moments": {name: list(pair) for name, pair in moments.items()}} | ({"edges": edges} if edges else {})
    made_by["truncated_bags"] = sum(part.truncated for part in parts)
    if sampled:
        kept_rows = sum(done.shards["train"][1] for done in ranges if "train" in done.shards)
        made_by["train_rows"] = {"read": kept_rows + sum(done.left_out for done in ranges), "kept": kept_rows}
    if not options.scoring and (constant := constants((done.extent for done in ranges), [one.name for one in schema.features])):
        made_by["constant"] = constant
    if labelled:
        made_by["days"] = days_of(parts, task.files, schema)
    if vocabularies:
        made_by["vocabulary_sha256"] = digest(vocabularies)
    if collisions:
        made_by["collisions"] = {name: vars(one) for name, one in collisions.items()}
    flags = deciding(options) | ({"schema": options.schema} if task.dataset == "log" and isinstance(options.schema, str) else {})
    said = said_of_run(task.dataset, flags, task.deciding, task.files, task.fingerprint, watch.lines, bad_lines, made_by)
    manifest = build_manifest(task.dataset, schema, splitter.splitter.names, ranges, cardinalities, vocabularies, said, labelled)
    publish(options.output, work, manifest, ranges, vocabularies)
    mark("write")
    kept_tokens = sum(len(one.tokens) for one in (task.kept.vocabularies if task.kept else vocabularies))
    appended = sum(len(one.tokens) for one in vocabularies) - kept_tokens
    return Result(manifest, bad_lines, watch.lines, size, time.monotonic() - began, False, stages, collisions, appended)


def _fitting(task: Task, parts: list[Part]) -> tuple[bool, Schema]:
    """Whether all rows have labels, and the schema without weight, group or time if some row of a log to score lacks it.

    Raises:
        UserError: no row has the schema's `positive` as its label.
    """
    seen, total, schema = Seen(), sum(part.rows for part in parts), task.read
    of_file = defaultdict[int, Seen](Seen)
    for part in parts:
        seen.add(part.seen)
        of_file[part.input].add(part.seen)
    for number, values in written_otherwise({one: (found.positives, found.labels) for one, found in of_file.items()}).items():
        most = ", ".join(f"{shown(value)} ({count:,} rows)" for value, count in values.most_common(VALUES_SHOWN))
        what = f"no label is {shown(str(schema.label.positive))}; all its values ({most}) count as 0, and no file with such rows has them"
        show(f"warning: {task.files[number].path}: {what}", sys.stderr)
    dropped = {key: f"{count:,} of {total:,} rows have no {key} that can be read" for key, count in seen.unread.items() if count}
    label = schema.label
    if task.labelled and label.positive is not None and not seen.positives and "label" not in dropped:
        most = ", ".join(f"{shown(value)} ({count:,} rows)" for value, count in seen.labels.most_common(VALUES_SHOWN))
        most += ", ..." * (len(seen.labels) > VALUES_SHOWN)
        what = f"no row's {printable(label.column)} is {shown(label.positive)}, the schema's `positive`; its values are {most}"
        if not task.kept:
            raise UserError(f"{task.where}: label.positive: {what}")
        if task.options.scoring:
            dropped["label"] = what
        else:
            show(f"warning: {what}", sys.stderr)
    for what in dropped.values():
        show(f"{what}: left out, scores do not need it", sys.stderr)
    return task.labelled and "label" not in dropped, schema.without(dropped.keys() - {"label"})


def _splitter(task: Task, parts: list[Part]) -> PartSplitter:
    options, time_of = task.options, task.schema.time
    by = "score" if options.scoring else options.split_by
    rule = Splitter(parse_shares(options.split), by, options.seed if by in ("random", "key") else 0)
    times: Times = "none" if time_of is None else "dates" if time_of.format else "bare"
    return PartSplitter(rule, parts, times, (options.validation_days, options.test_days))


def _numbers(task: Task, splitter: PartSplitter) -> tuple[dict[str, tuple[float, float]], dict[str, list[float]]]:
    """(mean, deviation) of standardised numbers, and edges of quantile buckets: those of --vocabulary if given, else of the train split."""
    if task.kept:
        return task.kept.moments, task.kept.edges
    schema, step = task.schema, task.options.rows_per_shard
    quantiles = {one.name: one.stored for one in schema.categorical if one.bucket and one.bucket.quantiles}
    standardized = {one.name: one.stored for one in schema.dense if one.transform == "standardise"}
    return train_moments(splitter, standardized, step), quantile_edges(train_samples(splitter, quantiles, step), schema)


def _vocabularies(task: Task, tokens: Tokens, engine: Engine) -> list[Vocabulary]:
    """The vocabularies: those of --vocabulary, or newly counted, or read from the intermediate folder if a killed run has counted them."""
    options, kept = task.options, task.kept
    if task.sizes:
        return []
    if kept and options.new_tokens == "rare":
        return kept.vocabularies
    folder, least = task.folder("vocabulary"), {one.name: one.min_count or options.min_count for one in task.schema.categorical}
    if os.path.isdir(folder):
        return [read_vocabulary(os.path.join(folder, f"{file_name(name)}.parquet"), name) for name in least]
    shutil.rmtree(folder + ".counts", ignore_errors=True)
    counted = count(tokens, least, options.memory_limit, engine, folder + ".counts", options.rows_per_shard)
    vocabularies = [ordered(name, counted.pop(name)) for name in least]
    shutil.rmtree(folder + ".counts", ignore_errors=True)
    if kept:
        vocabularies = [append_tokens(old, new) for old, new in zip(kept.vocabularies, vocabularies, strict=True)]
    # Kept tokens never lose their ids; max_ids limits only the tokens that are appended.
    held = [len(one.tokens) for one in kept.vocabularies] if kept else [0] * len(vocabularies)
    most = [one.max_ids or options.max_ids for one in task.schema.categorical]
    vocabularies = [one if limit is None else one.cut(max(limit, old)) for one, limit, old in zip(vocabularies, most, held, strict=True)]
    write_all(folder, vocabularies)
    return vocabularies
