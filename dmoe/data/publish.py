"""The last step of preprocessing: the manifest, and the move of what was made into its place."""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dmoe.data.bad_lines import Watch
from dmoe.data.criteo import BUCKETS, CATEGORICAL, DENSE_TRANSFORM, INTEGERS
from dmoe.data.inputs import Input
from dmoe.data.manifest import FILE, CategoricalFeature, DenseFeature, Manifest, load_manifest, save_manifest
from dmoe.data.manifest_parts import AnyRange, made_splits, said_of_run
from dmoe.data.rejects import Reject, write_rejects
from dmoe.data.shards import Range
from dmoe.data.sources import is_remote
from dmoe.data.split import NAMES, SCORE
from dmoe.data.stage import Part
from dmoe.data.vocabulary_files import FOLDER, AnyVocabulary, write_vocabulary
from dmoe.errors import UserError
from dmoe.paths import PATHS, join

REJECTS = "rejects"


def describe_run(
    deciding: Mapping[str, object],
    inputs: list[Input],
    parts: list[Part],
    fingerprint: str,
    lines: int,
    bad_lines: Counter[str],
) -> dict[str, object]:
    """The manifest's `made_by`. `days` are the well-formed rows of each input, and the clicks among them where there are labels."""
    rows, positives = [0] * len(inputs), [0] * len(inputs)
    for part in parts:
        rows[part.input] += part.rows
        positives[part.input] += part.positives
    names = [os.path.basename(one.path) for one in inputs]
    days = [{"name": name, "rows": n, "positives": p} for name, n, p in zip(names, rows, positives, strict=True)]
    known = {"days": days} if inputs[0].layout.labelled else {}
    return said_of_run("criteo", deciding, deciding, inputs, fingerprint, lines, bad_lines, known)


def build_manifest(
    ranges: list[Range], cardinalities: dict[str, int], names: tuple[str, ...], labelled: bool, made_by: dict[str, object]
) -> Manifest:
    """Missing and rare shares are over the rows of all splits."""
    missing = np.sum([done.missing for done in ranges], axis=0)
    rare = np.sum([done.rare for done in ranges], axis=0)
    splits = made_splits(names, ranges, labelled)
    total = sum(split.rows for split in splits.values())
    categorical = [
        CategoricalFeature(
            name=name,
            kind="bucket" if name in BUCKETS else "token",
            cardinality=cardinality,
            missing_share=float(missing[f] / total),
            rare_share=float(rare[f] / total),
        )
        for f, (name, cardinality) in enumerate(cardinalities.items())
    ]
    dense = [
        DenseFeature(name=name, transform=DENSE_TRANSFORM, missing_share=float(missing[CATEGORICAL.index(bucket)] / total))
        for name, bucket in zip(INTEGERS, BUCKETS, strict=True)
    ]
    return Manifest(dataset="criteo", dense=tuple(dense), categorical=tuple(categorical), splits=splits, made_by=made_by)


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
