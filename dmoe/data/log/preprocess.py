"""From any log that a schema describes to a data set: typed once, counted, mapped and written, each stage restartable.

As dmoe.data.preprocess does for Criteo's: the work lies in `OUTPUT/.work`, in folders named by a hash of what decides their contents.
"""

import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dmoe.data.bad_lines import Watch
from dmoe.data.lock import alone
from dmoe.data.log.buckets import Buckets, make_buckets, quantile_edges
from dmoe.data.log.days import days_of
from dmoe.data.log.described import build_manifest
from dmoe.data.log.encode import Seen
from dmoe.data.log.kept import Kept, load_kept
from dmoe.data.log.options import LogOptions, check_options
from dmoe.data.log.parts import Part, read_rejects, stage
from dmoe.data.log.schema import Schema
from dmoe.data.log.shards import make_mapping, train_moments, train_samples, write_shards
from dmoe.data.log.source import File, find_files, spooled_file
from dmoe.data.log.split import PartSplitter
from dmoe.data.log.vocabulary import Vocabulary, count, read_vocabulary
from dmoe.data.manifest_parts import said_of_run
from dmoe.data.output_folder import finished_before, refuse_other_than_stdin
from dmoe.data.preprocess import Result
from dmoe.data.publish import publish, set_aside
from dmoe.data.raw_file import check_unchanged
from dmoe.data.rejects import shown
from dmoe.data.sources import spool
from dmoe.data.split import Splitter, parse_shares
from dmoe.data.vocabulary_files import write_all
from dmoe.errors import UserError, printable
from dmoe.json_text import format_json
from dmoe.names import file_name

VALUES_SHOWN = 6


def _hash(*parts: object) -> str:
    return hashlib.sha256(format_json(["log", 1, *parts]).encode()).hexdigest()[:16]


def _deciding(options: LogOptions, kept: Kept | None) -> dict[str, Any]:
    of = {"vocabulary": options.vocabulary, "of": kept.fingerprint} if kept else {}
    if options.scoring:
        return of | {"scoring": True, "rows_per_shard": options.rows_per_shard, "row_group_rows": options.row_group_rows}
    shares = ",".join(str(share) for share in parse_shares(options.split))
    names = ("min_count", "split_by", "seed", "rows_per_shard", "row_group_rows")
    return of | {"split": shares, **{name: getattr(options, name) for name in names}}


def _dumped(schema: Schema) -> dict[str, Any]:
    return schema.model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True)
class _Task:
    """A run whose files are known. `kept` is what the data set of --vocabulary keeps, `read` what is read of the schema."""

    options: LogOptions
    schema: Schema
    read: Schema
    kept: Kept | None
    labelled: bool
    files: list[File]

    @property
    def deciding(self) -> dict[str, Any]:
        return _deciding(self.options, self.kept)

    @property
    def of_schema(self) -> dict[str, Any]:
        return {"schema": _dumped(self.schema)}

    @property
    def fingerprint(self) -> str:
        return _hash([one.known_by for one in self.files], self.deciding | self.of_schema)


def preprocess_log(options: LogOptions) -> Result:
    """Makes a data set from a log, or continues a run that was killed.

    Raises:
        UserError: a mistake in the options, the schema or the log, in one line.
    """
    began = time.monotonic()
    check_options(options)
    kept = load_kept(options.vocabulary) if options.vocabulary else None
    schema = kept.schema if kept else options.schema
    if not options.from_stdin:
        task = _task(options, schema, kept, lambda one, labelled: find_files(options.inputs, one, options.where, labelled))
        if old := finished_before(options, task.fingerprint):
            return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
        with alone(options.work_folder, options.output):
            return _run(task, began)
    refuse_other_than_stdin(options)
    with alone(options.work_folder, options.output):
        path, digest = spool(options.work_folder)
        task = _task(options, schema, kept, lambda one, labelled: [spooled_file(path, digest, one, options.where, labelled)])
        if old := finished_before(options, task.fingerprint):
            return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
        return _run(task, began)


def _task(options: LogOptions, schema: Schema, kept: Kept | None, find: Callable[[Schema, bool], list[File]]) -> _Task:
    """`find` gives the files, which have the columns of a schema, with its label where told so. A log to score has those of the features;
    others are read where every file has them."""
    if not options.scoring:
        return _Task(options, schema, schema, kept, True, find(schema, True))
    files = find(schema.without(schema.optional_for_scores), False)
    common = set.intersection(*(set(one.columns) for one in files))
    read = schema.without(key for key in schema.optional_for_scores if schema.column_of(key) not in common)
    labelled = schema.label.column in common
    return _Task(options, schema, read, kept, labelled, find(read, labelled))


def _run(task: _Task, began: float) -> Result:
    options, schema, kept, labelled, files = task.options, task.read, task.kept, task.labelled, task.files
    work, workers = options.work_folder, options.workers or os.cpu_count() or 1
    size = sum(one.size for one in files)
    print(f"{len(files)} file{'s' * (len(files) != 1)}, {size / 1e6:,.1f} MB, {workers} workers", file=sys.stderr)
    fingerprint, stages, marks = task.fingerprint, {}, time.monotonic()

    def mark(name: str) -> None:
        nonlocal marks
        stages[name], marks = time.monotonic() - marks, time.monotonic()

    how = ["scoring"] if options.scoring else []
    typed = _hash([one.known_by for one in files], _dumped(schema), labelled, options.block_bytes, *how)
    watch = Watch(options.max_bad_share, files if schema.format != "parquet" and schema.header else [])

    def check(part: Part) -> None:
        watch.count(part.lines, part.bad, lambda: (files[part.input].path, read_rejects(part)[0]))

    folder = os.path.join(work, f"parts-{typed}")
    parts = stage(files, schema, labelled, options.scoring, folder, options.block_bytes, workers, check)
    check_unchanged(files)
    rejects = (
        (one.path, (reject for part in parts if part.input == number for reject in read_rejects(part))) for number, one in enumerate(files)
    )
    bad_lines = set_aside(options.output, work, rejects, watch)
    if not watch.lines - watch.bad:
        raise UserError(f"--input {' '.join(options.inputs)}: no well-formed row among {watch.lines:,}")
    labelled, schema = _fitting(task, parts)
    mark("parse")
    by = "score" if options.scoring else options.split_by
    by_time = by == "time" and schema.time is not None
    splitter = PartSplitter(Splitter(parse_shares(options.split), by, options.seed), parts, by_time)
    if kept:
        vocabularies, moments, edges = kept.vocabularies, kept.moments, kept.edges
        buckets = make_buckets(schema, edges)
    else:
        by_quantiles = [one.name for one in schema.categorical if one.bucket and one.bucket.quantiles]
        edges = quantile_edges(train_samples(splitter, by_quantiles, options.rows_per_shard), schema)
        buckets = make_buckets(schema, edges)
        vocabularies = _vocabularies(os.path.join(work, f"vocabulary-{fingerprint}"), schema, buckets, parts, splitter, options, workers)
        standardised = [one.name for one in schema.dense if one.transform == "standardise"]
        moments = train_moments(splitter, standardised, options.rows_per_shard)
    mark("count")
    names = splitter.splitter.names
    mapping = make_mapping(schema, labelled, vocabularies, moments, buckets)
    shards = os.path.join(work, f"shards-{fingerprint}")
    ranges = write_shards(splitter, mapping, shards, names, options.rows_per_shard, options.row_group_rows, workers)
    flags = {name: value for name, value in task.deciding.items() if name != "of"}
    numbers = {"moments": {name: list(pair) for name, pair in moments.items()}, **({"edges": edges} if edges else {})}
    deciding = task.deciding | task.of_schema | numbers
    counted: dict[str, object] = {"truncated_bags": sum(part.truncated for part in parts)}
    if labelled:
        counted["days"] = days_of(parts, files, schema)
    made_by = said_of_run(options.dataset, flags, deciding, files, fingerprint, watch.lines, bad_lines, counted)
    manifest = build_manifest(options.dataset, schema, names, ranges, vocabularies, made_by, labelled)
    publish(options.output, work, manifest, ranges, vocabularies)
    mark("write")
    return Result(manifest, bad_lines, watch.lines, size, time.monotonic() - began, stages=stages)


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
            raise UserError(f"{task.options.where}: label.positive: {what}")
        if task.options.scoring:
            dropped["label"] = what
        else:
            print(f"warning: {what}", file=sys.stderr)
    for what in dropped.values():
        print(f"{what}: left out, scores do not need it", file=sys.stderr)
    return task.labelled and "label" not in dropped, schema.without(dropped.keys() - {"label"})


def _vocabularies(
    folder: str,
    schema: Schema,
    buckets: dict[str, Buckets],
    parts: list[Part],
    splitter: PartSplitter,
    options: LogOptions,
    workers: int,
) -> list[Vocabulary]:
    """Counts the vocabularies, or reads them where a killed run had counted them."""
    names = {one.name: one.min_count or options.min_count for one in schema.categorical}
    if os.path.isdir(folder):
        return [read_vocabulary(os.path.join(folder, f"{file_name(name)}.parquet"), name) for name in names]
    shutil.rmtree(folder + ".spilled", ignore_errors=True)
    counted = count(parts, names, buckets, lambda part: splitter.assign(part) == 0, options.memory_limit, workers, folder + ".spilled")
    shutil.rmtree(folder + ".spilled", ignore_errors=True)
    write_all(folder, counted)
    return counted
