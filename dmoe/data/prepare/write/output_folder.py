"""The output folder: what lies there before a run of preprocessing, and how what was made is put there, the manifest last."""

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
from dmoe.paths import PATHS, inside, join, remove_files, write_atomic, write_text

REJECTS = "rejects"
SHARD_FILE, VOCABULARY_FILE, REJECTS_FILE = r"part-\d{5,}\.parquet", r".+\.parquet", r"\d{5,}-.+\.tsv"
"""What a data set's folders hold; a user's own files in folders of these names stay."""


def refuse_other_than_stdin(options: Options) -> None:
    """Before all of standard input is read: a data set made from files is another one in any case.

    Raises:
        UserError: the output holds such a data set.
    """
    old = _data_set_there(options)
    if old and STDIN not in str(old.made_by.get("command")).split():
        raise _holds_another(options)


def finished_before(options: Options, fingerprint: str) -> Manifest | None:
    """The data set that the same command made before, if it is there; what a killed run left of its work in progress is removed.

    Raises:
        UserError: the output holds another data set, which is not to be overwritten.
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
    """Moves the malformed lines from the work in progress to the output, in place of those that lie there."""
    target = inside(output, REJECTS)
    if not is_remote(output):
        remove_files(target, REJECTS_FILE)
    move_rejects(os.path.join(work, REJECTS), target)


def move_rejects(source: str, target: str) -> None:
    """Moves the files of one local folder of malformed lines, where it is there, into another folder."""
    for name in sorted(os.listdir(source)) if os.path.isdir(source) else ():
        _place(os.path.join(source, name), join(target, name))


def set_aside(output: str, work: str, bad_lines: BadLines) -> Counter[str]:
    """Keeps the malformed lines of every input, and counts them by kind.

    Raises:
        TooManyBadLines: says where they are kept.
        UserError: an input has a header with the columns in another order.
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
    """Puts a finished file where it belongs; one that a killed run had put there already is left."""
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
    """
    Raises:
        UserError: it cannot be written there.
    """
    try:
        # iopath's S3 handler tells a failure by False.
        if PATHS.copy_from_local(source, target, overwrite=True) is False:
            raise OSError("refused")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error}); run the same command again to continue") from None


def _remove_old(output: str) -> None:
    """An old data set goes, its manifest first, so that no manifest ever names files that are not its own."""
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
    """Moves the shards into place, or uploads them, and writes the manifest last; can be repeated after a kill at any point."""
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
