"""Checks the output folder before a run, and moves the results there at its end, the manifest last."""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Sequence

from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest, save_manifest
from dmoe.data.dataset.vocabulary_files import FOLDER, file_of
from dmoe.data.prepare.bad_lines import BadLines, TooManyBadLines
from dmoe.data.prepare.count.vocabulary import Vocabulary, write_vocabulary
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.rejects import write_rejects
from dmoe.data.prepare.source.raw_bytes import STDIN, is_remote
from dmoe.data.prepare.split.split_rules import NAMES, SCORE
from dmoe.data.prepare.write.shards import Range
from dmoe.errors import UserError
from dmoe.storage.paths import PATHS, inside, join, remove_files, write_atomic, write_text

REJECTS = "rejects"
SHARD_FILE, VOCABULARY_FILE, REJECTS_FILE = r"part-\d{5,}\.parquet", r".+\.parquet", r"\d{5,}-.+\.tsv"
"""Names of the files that dmoe writes and may remove. Other files in these folders are left alone."""


def refuse_other_than_stdin(options: Options) -> None:
    """Refuses an output with a data set that was made from files, before standard input is read.

    Raises:
        UserError: the output holds such a data set.
    """
    old = _data_set_there(options)
    if old and STDIN not in str(old.made_by.get("command")).split():
        raise _holds_another(options)


def finished_before(options: Options, fingerprint: str) -> Manifest | None:
    """The manifest of the data set if the same command has made it before, else None. If so, intermediate files of a killed run are
    removed.

    Raises:
        UserError: the output holds another data set, and --overwrite is not given.
    """
    old = _data_set_there(options)
    if old and old.made_by.get("fingerprint") != fingerprint:
        raise _holds_another(options)
    if old:
        shutil.rmtree(options.work_folder, ignore_errors=True)
    return old


def _data_set_there(options: Options) -> Manifest | None:
    return None if options.overwrite or not PATHS.exists(join(options.output, FILE)) else load_manifest(options.output)


def _holds_another(options: Options) -> UserError:
    return UserError(f"--output {options.output}: holds another data set; name another folder, or replace it with --overwrite")


def keep_rejects(output: str, work: str) -> None:
    """Moves the files of malformed lines from the work folder to the output, and replaces older ones."""
    target = inside(output, REJECTS)
    if not is_remote(output):
        remove_files(target, REJECTS_FILE)
    move_rejects(os.path.join(work, REJECTS), target)


def move_rejects(source: str, target: str) -> None:
    """Moves the files of a local folder of malformed lines, if it exists, to another folder."""
    for name in sorted(os.listdir(source)) if os.path.isdir(source) else ():
        _place(os.path.join(source, name), join(target, name))


def set_aside(output: str, work: str, bad_lines: BadLines) -> Counter[str]:
    """Writes the malformed lines of every input to the work folder, and counts them by kind.

    Raises:
        TooManyBadLines: there are too many; names the folder that keeps them.
        UserError: an input holds a header with the columns in another order.
    """
    counts: Counter[str] = Counter()
    folder = os.path.join(work, REJECTS)
    shutil.rmtree(folder, ignore_errors=True)
    for number, file in enumerate(bad_lines.files):
        counts += write_rejects(folder, number, file.path, bad_lines.rejects(number))
    try:
        bad_lines.finish()
    except TooManyBadLines as error:
        kept = folder
        if not PATHS.exists(join(output, FILE)):
            keep_rejects(output, work)
            kept = join(output, REJECTS)
        raise TooManyBadLines(error.found, kept) from None
    return counts


def _place(source: str, target: str) -> None:
    """Moves a finished file to its place. A file that a killed run has moved already is left there."""
    if is_remote(target):
        _upload(source, target)
    elif os.path.exists(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with open(source, "rb") as file, write_atomic(target) as copy:
                shutil.copyfileobj(file, copy)
            os.remove(source)


def _upload(source: str, target: str) -> None:
    """Uploads a file.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        # iopath's S3 handler returns False if it fails.
        if PATHS.copy_from_local(source, target, overwrite=True) is False:
            raise OSError("refused")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error}); run the same command again to continue") from None


def _remove_old(output: str) -> None:
    """Removes an old data set, its manifest first, so that there is never a manifest that names files of another data set."""
    manifest = join(output, FILE)
    if not is_remote(output):
        if os.path.exists(manifest):
            os.remove(manifest)
        for name in (*NAMES, SCORE):
            remove_files(inside(output, name), SHARD_FILE)
        remove_files(inside(output, FOLDER), VOCABULARY_FILE)
        return
    if PATHS.exists(manifest):
        old = load_manifest(output)
        PATHS.rm(manifest)
        for shard in (shard for split in old.splits.values() for shard in split.shards):
            PATHS.rm(inside(output, shard.path))
        for feature in old.categorical:
            PATHS.rm(file_of(output, feature.name))


def publish(output: str, work: str, manifest: Manifest, ranges: Sequence[Range], vocabularies: Sequence[Vocabulary]) -> None:
    """Moves or uploads the shards, then the vocabularies, then the manifest. Can be repeated after a kill at any point."""
    begun = os.path.join(work, "finishing-" + str(manifest.made_by["fingerprint"]))
    if not os.path.exists(begun):
        _remove_old(output)
        write_text(begun, "")
    for name, split in manifest.splits.items():
        sources = [done.shards[name][0] for done in ranges if name in done.shards]
        for source, shard in zip(sources, split.shards, strict=True):
            _place(source, inside(output, shard.path))
    inside(output, FOLDER)
    for vocabulary in vocabularies:
        path = os.path.join(work, "vocabulary.parquet")
        write_vocabulary(path, vocabulary)
        _place(path, file_of(output, vocabulary.name))
    keep_rejects(output, work)
    save_manifest(work, manifest)
    _place(os.path.join(work, FILE), join(output, FILE))
    shutil.rmtree(work, ignore_errors=True)
