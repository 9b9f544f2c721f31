"""What every maker of data sets enters into their manifests alike: the splits, and how they were made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dmoe.data.dataset.manifest import Manifest, Shard, Split
from dmoe.data.prepare.raw_file import RawFile
from dmoe.strict import checked
from dmoe.version import __version__


class AnyRange(Protocol):
    """A finished range of rows: per split the shard's (file, rows, positives, sha256)."""

    shards: dict[str, tuple[str, int, int, str]]


def made_splits(names: Sequence[str], ranges: Sequence[AnyRange], labelled: bool) -> dict[str, Split]:
    """The splits, whose shards come from the ranges in order."""
    return {name: made_split(name, [done.shards[name] for done in ranges if name in done.shards], labelled) for name in names}


def made_split(name: str, held: Sequence[tuple[str, int, int, str]], labelled: bool) -> Split:
    """The split of that name; `held` are its shards as (file, rows, positives, sha256)."""
    shards = tuple(
        Shard(path=f"{name}/part-{number:05d}.parquet", rows=rows, positives=positives, sha256=digest)
        for number, (_, rows, positives, digest) in enumerate(held)
    )
    return Split(rows=sum(one.rows for one in shards), positives=sum(one.positives for one in shards), shards=shards, labelled=labelled)


def sound_manifest(**fields: Any) -> Manifest:
    """The manifest of those fields, checked as whoever reads it will check it.

    Raises:
        UserError: it contradicts itself, such as two splits that hold the same rows, in a log whose rows are all equal.
    """
    return checked(lambda tree: Manifest(**tree), fields, "the data set would not be usable")


def said_of_run(
    dataset: str,
    flags: Mapping[str, object],
    deciding: Mapping[str, object],
    inputs: Sequence[RawFile],
    fingerprint: str,
    lines: int,
    bad_lines: Counter[str],
    counted: Mapping[str, object],
) -> dict[str, Any]:
    """The manifest's `made_by`, for people to read. No times, no workers, no block size: the same data gives the same bytes.

    Args:
        flags: the command's options that decide the data set's bytes; `deciding` all that does.
        counted: what else was counted.
    """
    import pyarrow as pa

    words = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in flags.items()]
    return {
        "command": f"tools/preprocess.py {dataset} --input {' '.join(one.path for one in inputs)} {' '.join(words)}",
        "fingerprint": fingerprint,
        "inputs": [{"path": one.path, "bytes": one.size} for one in inputs],
        **deciding,
        "lines": lines,
        "bad_lines": dict(sorted(bad_lines.items())),
        **counted,
        "versions": {"dmoe": __version__, "pyarrow": pa.__version__},
    }
