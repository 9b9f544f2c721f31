"""The last step of preprocessing: what was made is moved into its place, the manifest last."""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence

from dmoe.data.bad_lines import Watch
from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest, save_manifest
from dmoe.data.manifest_parts import AnyRange
from dmoe.data.rejects import Reject, write_rejects
from dmoe.data.sources import is_remote
from dmoe.data.split import NAMES, SCORE
from dmoe.data.vocabulary_files import FOLDER, AnyVocabulary, write_vocabulary
from dmoe.errors import UserError
from dmoe.paths import PATHS, join

REJECTS = "rejects"


def keep_rejects(output: str, work: str) -> None:
    """Moves the malformed lines from the work in progress to the output, in place of those that lie there."""
    source = os.path.join(work, REJECTS)
    if not is_remote(output):
        shutil.rmtree(os.path.join(output, REJECTS), ignore_errors=True)
    for name in sorted(os.listdir(source)) if os.path.isdir(source) else ():
        _place(os.path.join(source, name), join(output, REJECTS, name))


def set_aside(output: str, work: str, rejects: Iterable[tuple[str, Iterable[Reject]]], watch: Watch) -> Counter[str]:
    """Keeps the malformed lines of every input, (its path, they), and counts them by kind.

    Raises:
        UserError: they are too many; says where they are kept.
    """
    counts: Counter[str] = Counter()
    folder = os.path.join(work, REJECTS)
    shutil.rmtree(folder, ignore_errors=True)
    for number, (path, lines) in enumerate(rejects):
        counts += write_rejects(folder, number, path, lines)
    try:
        watch.finish()
    except UserError as error:
        kept = folder
        if not PATHS.exists(join(output, FILE)):
            keep_rejects(output, work)
            kept = join(output, REJECTS)
        raise UserError(f"{error}; bad lines are kept in {kept}") from None
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
            shutil.copyfile(source, target + ".tmp")
            os.replace(target + ".tmp", target)
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
        for name in (*NAMES, SCORE, FOLDER):
            shutil.rmtree(os.path.join(output, name), ignore_errors=True)
        return
    if PATHS.exists(manifest):
        old = load_manifest(output)
        PATHS.rm(manifest)
        stale = [shard.path for split in old.splits.values() for shard in split.shards]
        for path in [*stale, *(f"{FOLDER}/{feature.name}.parquet" for feature in old.categorical)]:
            PATHS.rm(join(output, path))


def publish(output: str, work: str, manifest: Manifest, ranges: Sequence[AnyRange], vocabularies: Sequence[AnyVocabulary]) -> None:
    """Moves the shards into place, or uploads them, and writes the manifest last; can be repeated after a kill at any point."""
    begun = os.path.join(work, "finishing-" + str(manifest.made_by["fingerprint"]))
    if not os.path.exists(begun):
        _remove_old(output)
        open(begun, "w").close()
    for name, split in manifest.splits.items():
        sources = [done.shards[name][0] for done in ranges if name in done.shards]
        for source, shard in zip(sources, split.shards, strict=True):
            _place(source, join(output, shard.path))
    for vocabulary in vocabularies:
        path = os.path.join(work, f"{vocabulary.name}.parquet")
        write_vocabulary(path, vocabulary)
        _place(path, join(output, FOLDER, f"{vocabulary.name}.parquet"))
    keep_rejects(output, work)
    save_manifest(work, manifest)
    _place(os.path.join(work, FILE), join(output, FILE))
    shutil.rmtree(work, ignore_errors=True)
