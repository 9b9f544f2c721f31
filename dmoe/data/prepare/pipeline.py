"""From any log that a schema describes to a data set: typed once, counted, mapped and written, each stage restartable.

The work lies in `OUTPUT/.work`, or where --work says, until the data set is whole. Its folders are named by a hash of what decides
their contents, so that the same command continues and another one does not mix with it.
"""

import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from dmoe.data.dataset.manifest import Manifest
from dmoe.data.manifest_parts import said_of_run
from dmoe.data.prepare.bad_lines import BadLines
from dmoe.data.prepare.buckets import make_buckets, quantile_edges
from dmoe.data.prepare.counting import count
from dmoe.data.prepare.days import days_of
from dmoe.data.prepare.described import build_manifest
from dmoe.data.prepare.encode import Seen
from dmoe.data.prepare.engine import Engine, open_engine
from dmoe.data.prepare.extents import constants
from dmoe.data.prepare.features import Tokens
from dmoe.data.prepare.front import front_for
from dmoe.data.prepare.hashing import Collisions, measure, parse_sizes
from dmoe.data.prepare.kept import Kept, load_kept
from dmoe.data.prepare.lock import alone
from dmoe.data.prepare.negatives import Negatives
from dmoe.data.prepare.numbers import train_moments, train_samples
from dmoe.data.prepare.options import Options, check_options, deciding
from dmoe.data.prepare.output_folder import finished_before, refuse_other_than_stdin
from dmoe.data.prepare.parts import Part, stage
from dmoe.data.prepare.publish import publish, set_aside
from dmoe.data.prepare.raw_file import check_unchanged
from dmoe.data.prepare.rejects import shown
from dmoe.data.prepare.schema import Schema, load_schema, shipped
from dmoe.data.prepare.shards import Job, write_shards
from dmoe.data.prepare.source import File, find_files, spooled_file
from dmoe.data.prepare.sources import spool
from dmoe.data.prepare.split import PartSplitter, Times
from dmoe.data.prepare.split_rules import Splitter, parse_shares
from dmoe.data.prepare.tokens import HashedIds
from dmoe.data.prepare.vocabulary import Vocabulary, append_tokens, digest, ordered, read_vocabulary
from dmoe.data.prepare.vocabulary_files import write_all
from dmoe.errors import UserError
from dmoe.json_text import format_json
from dmoe.names import file_name, printable, show

__all__ = ["Options", "Result", "preprocess"]

FORMAT, FORMAT_OF_WORK = 3, 4
"""Of what fingerprints are made from, which data sets keep; and of the work in progress, which another version does not continue."""
VALUES_SHOWN = 6


@dataclass
class Result:
    """What a run did, for its summary. `collisions` by feature, of hashed ids; `appended` tokens."""

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
class _Task:
    """A run whose files are known. `kept` is what the data set of --vocabulary keeps; `sizes` those of hashed ids; `read` is what is read
    of the schema."""

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
        """A folder of the work in progress."""
        return os.path.join(self.options.work_folder, f"{name}-{_hash(FORMAT_OF_WORK, *(decided_by or [self.fingerprint]))}")


def preprocess(options: Options) -> Result:
    """Makes a data set from a log, or continues a run that was killed.

    Raises:
        UserError: a mistake in the options, the schema or the log, in one line.
    """
    began = time.monotonic()
    check_options(options)
    kept = load_kept(options.vocabulary) if options.vocabulary else None
    schema, where, dataset = _schema_of(options, kept)
    options, schema = _asked(options, schema, where)
    sizes = kept.sizes if kept else parse_sizes(options.hash_size, schema.categorical) if options.hash_size else {}
    if sizes and options.new_tokens == "append":
        raise UserError(f"--vocabulary {options.vocabulary}: has hashed ids, to which none can be appended")
    known = (options, schema, where, dataset, kept, sizes)
    if not options.from_stdin:
        task = _Task(*known, *find_files(options.inputs, schema, where, options.scoring))
        if old := finished_before(options, task.fingerprint):
            return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
        with alone(options.work_folder, options.output):
            return _run(task, began)
    refuse_other_than_stdin(options)
    with alone(options.work_folder, options.output):
        task = _Task(*known, *spooled_file(*spool(options.work_folder), schema, where, options.scoring))
        if old := finished_before(options, task.fingerprint):
            return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
        return _run(task, began)


def _schema_of(options: Options, kept: Kept | None) -> tuple[Schema, str, str]:
    """(schema, what messages call it, the data set's name)."""
    given = options.schema
    named = options.dataset or (given if isinstance(given, str) and given in shipped() else "")
    if kept:
        if named and named != kept.dataset:
            raise UserError(f"--vocabulary {options.vocabulary}: a data set of '{kept.dataset}', expected one of '{named}'")
        return kept.schema, f"the schema of {options.vocabulary}", kept.dataset
    if isinstance(given, str):
        return load_schema(given), given, named or "log"
    assert given is not None
    return given, options.where or named or "the schema", named or "log"


def _asked(options: Options, schema: Schema, where: str) -> tuple[Options, Schema]:
    """Both with what either asks for, the options first, and without what has no effect."""
    key = (options.split_key or schema.split_key) if options.split_by == "key" and not options.scoring else None
    if options.split_by == "key" and not (key or options.scoring):
        raise UserError(f"--split-by key: name the column with --split-key, or as split_key in {where}")
    share = None if options.scoring else schema.negatives if options.negatives is None else options.negatives
    share = None if share == 1 else share
    return replace(options, split_key=key, negatives=share), schema.model_copy(update={"split_key": key, "negatives": share})


def _leave_old_work(folder: str) -> None:
    """Says once that the work in progress of an older version lies there, which nothing of this one reads; it goes with the rest."""
    note = os.path.join(folder, f"format-{FORMAT_OF_WORK}")
    if not os.path.exists(note) and any(name.startswith(("parts-", "shards-", "vocabulary-")) for name in os.listdir(folder)):
        print(f"{folder}: holds work in progress of another version of dmoe, which is not continued", file=sys.stderr)
    open(note, "w").close()


def _run(task: _Task, began: float) -> Result:
    _leave_old_work(task.options.work_folder)
    with open_engine(task.options.engine, task.options.workers, task.options.ray_address) as engine:
        return _run_stages(task, engine, began)


def _run_stages(task: _Task, engine: Engine, began: float) -> Result:
    options, work = task.options, task.options.work_folder
    size = sum(one.size for one in task.files)
    workers = f"{engine.workers}{' Ray' * (options.engine == 'ray')} workers"
    print(f"{len(task.files)} file{'s' * (len(task.files) != 1)}, {size / 1e6:,.1f} MB, {workers}", file=sys.stderr)
    stages, marked = {}, time.monotonic()

    def mark(name: str) -> None:
        nonlocal marked
        stages[name], marked = time.monotonic() - marked, time.monotonic()

    watch = BadLines(task.files, options.max_bad_share)
    folder = task.folder("parts", task.known_by, _dumped(task.read), task.labelled, options.scoring, options.block_bytes)
    parts = stage(task.files, front_for(task.read, task.labelled, options.scoring, options.block_bytes), folder, engine, watch.add)
    check_unchanged(task.files)
    bad_lines = set_aside(options.output, work, ((one.path, watch.rejects(number)) for number, one in enumerate(task.files)), watch)
    if watch.lines == watch.bad:
        raise UserError(f"--input {' '.join(options.inputs)}: no well-formed row among {watch.lines:,}")
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


def _fitting(task: _Task, parts: list[Part]) -> tuple[bool, Schema]:
    """Whether the rows have labels, and what else of the schema all of them have: of a log to score, not each needs to.

    Raises:
        UserError: the schema's `positive` is no row's label.
    """
    seen, total, schema = Seen(), sum(part.rows for part in parts), task.read
    for part in parts:
        seen.add(part.seen)
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


def _splitter(task: _Task, parts: list[Part]) -> PartSplitter:
    options, time_of = task.options, task.schema.time
    by = "score" if options.scoring else options.split_by
    rule = Splitter(parse_shares(options.split), by, options.seed if by in ("random", "key") else 0)
    times: Times = "none" if time_of is None else "dates" if time_of.format else "bare"
    return PartSplitter(rule, parts, times, (options.validation_days, options.test_days))


def _numbers(task: _Task, splitter: PartSplitter) -> tuple[dict[str, tuple[float, float]], dict[str, list[float]]]:
    """(mean, deviation) of standardised numbers and the edges of quantile buckets: the kept ones, or those of the train split."""
    if task.kept:
        return task.kept.moments, task.kept.edges
    schema, step = task.schema, task.options.rows_per_shard
    quantiles = {one.name: one.stored for one in schema.categorical if one.bucket and one.bucket.quantiles}
    standardised = {one.name: one.stored for one in schema.dense if one.transform == "standardise"}
    return train_moments(splitter, standardised, step), quantile_edges(train_samples(splitter, quantiles, step), schema)


def _vocabularies(task: _Task, tokens: Tokens, engine: Engine) -> list[Vocabulary]:
    """Keeps the vocabularies that are given, or counts them, or reads them where a killed run had counted them."""
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
    # After the kept tokens, which never lose their ids, so that what is appended ends where max_ids does.
    held = [len(one.tokens) for one in kept.vocabularies] if kept else [0] * len(vocabularies)
    most = [one.max_ids or options.max_ids for one in task.schema.categorical]
    vocabularies = [one if limit is None else one.cut(max(limit, old)) for one, limit, old in zip(vocabularies, most, held, strict=True)]
    write_all(folder, vocabularies)
    return vocabularies
