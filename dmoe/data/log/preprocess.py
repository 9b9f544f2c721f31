"""From any log that a schema describes to a data set: typed once, counted, mapped and written, each stage restartable.

As dmoe.data.preprocess does for Criteo's: the work lies in `OUTPUT/.work`, in folders named by a hash of what decides their contents.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from typing import Any

import pyarrow as pa

import dmoe
from dmoe.data.lock import alone
from dmoe.data.log.buckets import Buckets, make_buckets, quantile_edges
from dmoe.data.log.described import build_manifest
from dmoe.data.log.kept import Kept, load_kept
from dmoe.data.log.options import LogOptions, check_options
from dmoe.data.log.parts import Part, Watch, read_rejects, stage
from dmoe.data.log.schema import Schema
from dmoe.data.log.shards import make_mapping, train_moments, train_samples, write_shards
from dmoe.data.log.source import File, find_files
from dmoe.data.log.split import PartSplitter
from dmoe.data.log.vocabulary import Vocabulary, count, read_vocabulary, write_vocabulary
from dmoe.data.manifest import FILE, load_manifest
from dmoe.data.preprocess import Result
from dmoe.data.publish import REJECTS, keep_rejects, publish
from dmoe.data.rejects import write_rejects
from dmoe.data.split import Splitter, parse_shares
from dmoe.errors import UserError
from dmoe.paths import PATHS, join


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(["log", 1, *parts]).encode()).hexdigest()[:16]


def _deciding(options: LogOptions, kept: Kept | None) -> dict[str, Any]:
    of = {"vocabulary": options.vocabulary, "of": kept.fingerprint} if kept else {}
    if options.scoring:
        return of | {"scoring": True, "rows_per_shard": options.rows_per_shard, "row_group_rows": options.row_group_rows}
    shares = ",".join(str(share) for share in parse_shares(options.split))
    names = ("min_count", "split_by", "seed", "rows_per_shard", "row_group_rows")
    return of | {"split": shares, **{name: getattr(options, name) for name in names}}


def preprocess_log(options: LogOptions) -> Result:
    """Makes a data set from a log, or continues a run that was killed.

    Raises:
        UserError: a mistake in the options, the schema or the log, in one line.
    """
    began = time.monotonic()
    check_options(options)
    if options.scoring and not options.vocabulary:
        raise UserError("--scoring: say by which data set's vocabulary: --vocabulary D")
    kept = load_kept(options.vocabulary) if options.vocabulary else None
    schema = kept.schema if kept else options.schema
    labelled = True
    try:
        files = find_files(options.inputs, schema, options.where)
    except UserError:
        if not options.scoring:
            raise
        files, labelled = find_files(options.inputs, schema, options.where, labelled=False), False
    deciding = _deciding(options, kept) | {"schema": schema.model_dump(mode="json", exclude_defaults=True)}
    fingerprint = _hash([[one.path, one.size, one.changed] for one in files], deciding)
    if PATHS.exists(join(options.output, FILE)) and not options.overwrite:
        old = load_manifest(options.output)
        if old.made_by.get("fingerprint") == fingerprint:
            shutil.rmtree(options.work_folder, ignore_errors=True)
            return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
        raise UserError(f"--output {options.output}: holds another data set; name another folder, or replace it with --overwrite")
    with alone(options.work_folder, options.output):
        return _run(options, schema, kept, labelled, files, deciding, fingerprint, began)


def _run(
    options: LogOptions,
    schema: Schema,
    kept: Kept | None,
    labelled: bool,
    files: list[File],
    deciding: dict[str, Any],
    fingerprint: str,
    began: float,
) -> Result:
    work, workers = options.work_folder, options.workers or os.cpu_count() or 1
    size = sum(one.size for one in files)
    print(f"{len(files)} file{'s' * (len(files) != 1)}, {size / 1e6:,.1f} MB, {workers} workers", file=sys.stderr)
    stages, marks = {}, time.monotonic()

    def mark(name: str) -> None:
        nonlocal marks
        stages[name], marks = time.monotonic() - marks, time.monotonic()

    identity = [[one.path, one.size, one.changed] for one in files]
    typed = _hash(identity, deciding["schema"], labelled, options.block_bytes)
    watch = Watch(files, options.max_bad_share)
    parts = stage(files, schema, labelled, os.path.join(work, f"parts-{typed}"), options.block_bytes, workers, watch.add)
    bad_lines = _keep_rejects(options, work, files, parts, watch)
    if not watch.lines - watch.bad:
        raise UserError(f"--input {' '.join(options.inputs)}: no well-formed row among {watch.lines:,}")
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
    made_by = {
        "command": f"tools/preprocess.py {options.dataset} --input {' '.join(one.path for one in files)} {_flags(deciding)}",
        "fingerprint": fingerprint,
        "inputs": [{"path": one.path, "bytes": one.size} for one in files],
        **deciding,
        "moments": {name: list(pair) for name, pair in moments.items()},
        **({"edges": edges} if edges else {}),
        "lines": watch.lines,
        "bad_lines": dict(sorted(bad_lines.items())),
        "truncated_bags": sum(part.truncated for part in parts),
        "versions": {"dmoe": dmoe.__version__, "pyarrow": pa.__version__},
    }
    manifest = build_manifest(options.dataset, schema, names, ranges, vocabularies, made_by, labelled)
    publish(options.output, work, manifest, ranges, vocabularies)  # type: ignore[arg-type]
    mark("write")
    return Result(manifest, bad_lines, watch.lines, size, time.monotonic() - began, stages=stages)


def _flags(deciding: dict[str, Any]) -> str:
    given = {name: value for name, value in deciding.items() if name not in ("schema", "of")}
    return " ".join(f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in given.items())


def _keep_rejects(options: LogOptions, work: str, files: list[File], parts: list[Part], watch: Watch) -> Counter[str]:
    bad_lines: Counter[str] = Counter()
    shutil.rmtree(os.path.join(work, REJECTS), ignore_errors=True)
    for number, one in enumerate(files):
        mine = (reject for part in parts if part.input == number for reject in read_rejects(part))
        bad_lines += write_rejects(os.path.join(work, REJECTS), number, one.path, mine)
    try:
        watch.finish()
    except UserError as error:
        held = os.path.join(work, REJECTS)
        if not PATHS.exists(join(options.output, FILE)):
            keep_rejects(options.output, work)
            held = join(options.output, REJECTS)
        raise UserError(f"{error}; bad lines are kept in {held}") from None
    return bad_lines


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
        return [read_vocabulary(os.path.join(folder, f"{name}.parquet"), name) for name in names]
    shutil.rmtree(folder + ".spilled", ignore_errors=True)
    counted = count(parts, names, buckets, lambda part: splitter.assign(part) == 0, options.memory_limit, workers, folder + ".spilled")
    shutil.rmtree(folder + ".spilled", ignore_errors=True)
    shutil.rmtree(folder + ".tmp", ignore_errors=True)
    os.makedirs(folder + ".tmp")
    for vocabulary in counted:
        write_vocabulary(os.path.join(folder + ".tmp", f"{vocabulary.name}.parquet"), vocabulary)
    os.replace(folder + ".tmp", folder)
    return counted
