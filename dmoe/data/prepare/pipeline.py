"""Makes a data set from a log that a schema describes: parse once, count tokens, map tokens to ids, write shards.

Intermediate files are in `OUTPUT/.work`, or in the folder of --work, until the data set is complete.
"""

import os
import sys
import time
from collections import Counter
from dataclasses import replace

from dmoe.data.prepare.count.hashed_sizes import parse_sizes
from dmoe.data.prepare.engines.engine import open_engine
from dmoe.data.prepare.kept import Kept, load_kept
from dmoe.data.prepare.options import Options, check_options
from dmoe.data.prepare.schema import Schema, load_schema, shipped
from dmoe.data.prepare.source.log_files import find_files, spooled_file
from dmoe.data.prepare.source.raw_bytes import spool
from dmoe.data.prepare.stages import FORMAT_OF_WORK, Result, Task, run_stages
from dmoe.data.prepare.write.output_folder import finished_before, refuse_other_than_stdin
from dmoe.errors import UserError
from dmoe.names import show
from dmoe.storage.lock import alone

__all__ = ["Options", "Result", "preprocess"]


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
        raise UserError(f"--vocabulary {options.vocabulary}: has hashed ids, so no ids can be appended")
    known = (options, schema, where, dataset, kept, sizes)
    if not options.from_stdin:
        task = Task(*known, *find_files(options.inputs, schema, where, options.scoring))
        if old := finished_before(options, task.fingerprint):
            return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
        with alone(options.work_folder, options.output):
            return _run(task, began)
    refuse_other_than_stdin(options)
    with alone(options.work_folder, options.output):
        task = Task(*known, *spooled_file(*spool(options.work_folder), schema, where, options.scoring))
        if old := finished_before(options, task.fingerprint):
            return Result(old, Counter(), 0, 0, time.monotonic() - began, already_there=True)
        return _run(task, began)


def _schema_of(options: Options, kept: Kept | None) -> tuple[Schema, str, str]:
    """(schema, how messages name it, name of the data set)."""
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
    """The options and the schema with one value for `split_key` and `negatives`: the option's if given, else the schema's; None if it has
    no effect."""
    key = (options.split_key or schema.split_key) if options.split_by == "key" and not options.scoring else None
    if options.split_by == "key" and not (key or options.scoring):
        raise UserError(f"--split-by key: name the column with --split-key, or as split_key in {where}")
    share = None if options.scoring else schema.negatives if options.negatives is None else options.negatives
    share = None if share == 1 else share
    return replace(options, split_key=key, negatives=share), schema.model_copy(update={"split_key": key, "negatives": share})


def _leave_old_work(folder: str) -> None:
    """Says once that the folder holds work in progress of another version of dmoe. It is not read, and it is removed with the folder."""
    note = os.path.join(folder, f"format-{FORMAT_OF_WORK}")
    if not os.path.exists(note) and any(name.startswith(("parts-", "shards-", "vocabulary-")) for name in os.listdir(folder)):
        show(f"{folder}: holds work in progress of another version of dmoe, which is not continued", sys.stderr)
    open(note, "w").close()


def _run(task: Task, began: float) -> Result:
    _leave_old_work(task.options.work_folder)
    with open_engine(task.options.engine, task.options.workers, task.options.ray_address) as engine:
        return run_stages(task, engine, began)
