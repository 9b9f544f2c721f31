"""A global shuffle of a data set's rows, once and offline, so that reading needs to shuffle no more than row groups.

The order of a split is that of a 64-bit hash of (seed, split, row number), and a shard is an equal range of hashes: both are known
of each row without seeing any other. Pass 1 sorts chunks of rows by hash and writes each as one file with a batch for every
shard to come; pass 2 reads a shard's batch from every chunk, sorts and writes it. So memory holds a chunk or a shard a worker,
the bytes depend on the data set, the seed and the shards' sizes alone, and every finished file is kept where a run is killed.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmoe.data.dataset.files import verify
from dmoe.data.dataset.manifest import FILE, Manifest, Split, load_manifest, save_manifest
from dmoe.data.lock import alone
from dmoe.data.publish import SHARD_FILE
from dmoe.data.shuffle_passes import Shuffled, shuffle_split
from dmoe.data.split import GOLDEN, splitmix64
from dmoe.data.vocabulary_files import FOLDER, vocabulary_file
from dmoe.errors import UserError
from dmoe.json_text import format_json
from dmoe.paths import PATHS, inside, join, remove_files, write_atomic, write_text

WORK, FORMAT_OF_WORK = ".work", 1
VERIFIED = ".verified"
"""No split is named so."""


@dataclass(frozen=True)
class ShuffleOptions:
    """What decides the bytes, then what does not: memory_limit (bytes, about) and workers (threads, 0 for one a core)."""

    data: str
    output: str
    seed: int = 0
    rows_per_shard: int = 524_288
    row_group_rows: int = 32_768
    memory_limit: int = 1 << 30
    workers: int = 0


def keys_of(seed: int, split: str, first: int, rows: int) -> NDArray[np.uint64]:
    """The hashes [rows] uint64 of rows first, first + 1, ... of a split: no two rows of a split have the same.

    splitmix64(k + (row + 1) * golden ratio), k = splitmix64(seed ^ the first 8 bytes, little-endian, of the name's SHA-256).
    """
    name = int.from_bytes(hashlib.sha256(split.encode()).digest()[:8], "little")
    key = splitmix64(np.array([(seed % 2**64) ^ name], np.uint64))
    row = np.arange(first + 1, first + rows + 1, dtype=np.uint64)
    return splitmix64(key + row * GOLDEN)


def shuffle(options: ShuffleOptions) -> tuple[Manifest, bool]:
    """Writes the shuffled data set, or continues a run that was killed; returns its manifest and whether it was there already.

    Raises:
        UserError: a mistake in the options, a shard that is not what the manifest says, an output that holds another data set.
    """
    _check(options)
    source = load_manifest(options.data)
    deciding = {name: getattr(options, name) for name in ("seed", "rows_per_shard", "row_group_rows")}
    text = format_json([FORMAT_OF_WORK, source.model_dump(mode="json"), deciding])
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    if os.path.exists(os.path.join(options.output, FILE)):
        old = load_manifest(options.output)
        if old.made_by.get("fingerprint") == fingerprint:
            shutil.rmtree(os.path.join(options.output, WORK), ignore_errors=True)
            return old, True
        raise UserError(f"--output {options.output}: holds another data set; name another folder")
    top = inside(options.output, WORK)
    with alone(top, options.output):
        work = os.path.join(top, f"shuffle-{fingerprint}")
        os.makedirs(work, exist_ok=True)
        workers = options.workers or os.cpu_count() or 1
        if not os.path.exists(os.path.join(work, VERIFIED)):
            # New checksums must not hide that the old ones did not hold.
            verify(options.data, source, workers)
            write_text(os.path.join(work, VERIFIED), "")
        done = {name: _split(options, source, name, inside(work, name), workers) for name in source.splits}
        splits = {name: one.split for name, one in done.items()}
        command = f"dmoe data shuffle {options.data} " + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in deciding.items())
        # Its own fingerprint: by the source's, preprocessing would take the shuffled rows for its own.
        made_by = {**source.made_by, "fingerprint": fingerprint, "shuffled": {"command": command, **deciding}}
        manifest = source.model_copy(update={"splits": splits, "made_by": made_by})
        _publish(options, top, manifest, done)
    return manifest, False


def _check(options: ShuffleOptions) -> None:
    for name in ("rows_per_shard", "row_group_rows", "memory_limit"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected 1 or more")
    if options.workers < 0:
        raise UserError(f"--workers is {options.workers}, expected 1 or more, or 0 for one a core")
    if "://" in options.output:
        raise UserError(f"--output {options.output}: shuffling writes to a local or mounted folder; copy the result up afterwards")
    if os.path.realpath(options.output) == os.path.realpath(options.data):
        raise UserError(f"--output {options.output}: is the data set itself; name another folder")


def _split(options: ShuffleOptions, source: Manifest, name: str, folder: str, workers: int) -> Shuffled:
    """Shuffles a split, or reads what a killed run had finished."""
    note = folder + ".json"
    if not os.path.exists(note):
        done = shuffle_split(
            options.data,
            source,
            name,
            folder,
            lambda first, rows: keys_of(options.seed, name, first, rows),
            options.rows_per_shard,
            options.row_group_rows,
            options.memory_limit,
            workers,
        )
        write_text(note, format_json({"files": done.files, "split": done.split.model_dump(mode="json")}))
    shutil.rmtree(os.path.join(folder, "chunks"), ignore_errors=True)
    with open(note) as file:
        read = json.load(file)
    return Shuffled(read["files"], Split.model_validate(read["split"]))


def _publish(options: ShuffleOptions, top: str, manifest: Manifest, done: dict[str, Shuffled]) -> None:
    """Moves the shards into place and the manifest last; can be repeated after a kill at any point."""
    for name, one in done.items():
        target = inside(options.output, name)
        remove_files(target, SHARD_FILE, but={os.path.basename(shard.path) for shard in one.split.shards})
        os.makedirs(target, exist_ok=True)
        for file, shard in zip(one.files, one.split.shards, strict=True):
            if os.path.exists(file):
                os.replace(file, inside(options.output, shard.path))
    if PATHS.isdir(join(options.data, FOLDER)):
        os.makedirs(inside(options.output, FOLDER), exist_ok=True)
        for feature in manifest.categorical:
            kept = vocabulary_file(options.data, feature.name)
            if PATHS.exists(kept):
                with PATHS.open(kept, "rb") as source, write_atomic(vocabulary_file(options.output, feature.name), sync=False) as copy:
                    shutil.copyfileobj(source, copy)
    save_manifest(top, manifest)
    os.replace(os.path.join(top, FILE), os.path.join(options.output, FILE))
    shutil.rmtree(top, ignore_errors=True)
