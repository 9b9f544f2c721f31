"""The options of preprocessing, their checks, and which of them decide the data set's bytes."""

from dataclasses import MISSING, dataclass
from typing import Any, Literal

from dmoe.config.option import option
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.raw_bytes import STDIN, is_remote
from dmoe.data.prepare.split.split_rules import parse_shares
from dmoe.errors import UserError
from dmoe.storage.paths import inside

WORK = ".work"
MAX_BLOCK = 1 << 30
"""Bytes. Positions in a block are 32-bit integers."""


@dataclass(frozen=True)
class Options:
    """The options of a run. Those from max_bad_share on do not change the data set's bytes.

    Args:
        inputs: files, folders and globs, or `-` alone for standard input.
        output: folder of the data set. If it is remote, `work` must name a local folder for the work in progress.
        schema: a Schema, a schema file, or the name of a shipped schema. If absent, the schema of `vocabulary` is used.
        where: how messages name the schema.
        dataset: name of the log in the manifest.
        vocabulary: a data set whose ids, schema and moments are reused; `new_tokens` decides what happens to tokens that it lacks.
        ids: `counted` in the train split, or by `hash` into tables of `hash_size` rows (dmoe.data.prepare.count.hashed_sizes.parse_sizes).
        scoring: makes one split `score` of all rows, with or without labels, with the ids of `vocabulary` or hashed ids.
        validation_days, test_days: for `split_by` day. If both are 0, the halves of the last day are held out.
        engine: threads of this process, or Ray: the cluster at `ray_address` (`auto`: the cluster of this node), else a new local one.
    """

    inputs: list[str] = option(
        MISSING,
        "files, folders or globs, local or s3://; plain text, gzip, zstd, bz2, xz, or a zip or tar with one file; - alone: standard input",
        flag="--input",
        metavar="F",
    )
    output: str = option(MISSING, "folder of the data set, local or s3://", metavar="D")
    schema: Schema | str | None = None
    where: str = ""
    dataset: str = ""
    vocabulary: str | None = option(None, "use the ids, schema and moments of this data set", metavar="D")
    new_tokens: Literal["rare", "append"] = option(
        "rare", "tokens that --vocabulary lacks: treat as rare, or append new ids after the old ones (rare)"
    )
    ids: Literal["counted", "hash"] = option("counted", "ids by frequency, or by a hash, which needs no counting (counted)")
    hash_size: str | None = option(None, "rows of each table for --ids hash", metavar="N[,C6=N]")
    min_count: int = option(10, "a token needs this many occurrences in the train split for an id of its own (%(default)s)")
    max_ids: int | None = option(None, "give ids of their own to at most N tokens of each feature, the most frequent ones", metavar="N")
    split: str = option("0.8,0.1,0.1", "shares of train, validation and test (%(default)s)")
    split_by: Literal["random", "key", "time", "day"] = option(
        "random",
        "random: by a hash of the seed and the row number; key: by a hash of the seed and the value of --split-key, so that all rows with"
        " one value are in one split; time: by the time column, or else by the order of the log; day: by the day of the time column, or"
        " else by file, and the halves of the last day are validation and test (%(default)s)",
    )
    split_key: str | None = option(
        None, "for --split-by key: a column, such as the user id (default: split_key of the schema)", metavar="COLUMN"
    )
    validation_days: int = option(0, "for --split-by day: hold out this many whole days before the test days")
    test_days: int = option(0, "for --split-by day: hold out this many whole days at the end")
    negatives: float | None = option(
        None,
        "keep this share of the negatives of the train split, chosen by a hash of the seed and the row number; each kept one gets the"
        " weight 1 / share",
        metavar="SHARE",
    )
    shuffle: bool = option(False, "write the train split in one global random order")
    seed: int = option(0, "seed of random and key splits, of --negatives and of --shuffle (0)")
    scoring: bool = option(False, "make one split, 'score', of all rows; the log needs no labels")
    rows_per_shard: int = option(524_288, "rows of the log that are written together, one shard for each split (%(default)s)")
    row_group_rows: int = option(32_768, "rows of a parquet row group (%(default)s)")

    max_bad_share: float = option(0.001, "stop if a larger share of the lines is malformed (%(default)s)")
    block_bytes: int = option(8 << 20, "text parsed at a time (%(default)s); does not change the output", flag="--block-kb", scale=1 << 10)
    workers: int = option(0, "threads, or Ray tasks at a time (one for each core); does not change the output")
    memory_limit: int = option(
        512 << 20,
        "memory for the counts, and for the rows of --shuffle (%(default)s); with Ray, of each task. Beyond it, counts go to disk and"
        " fewer threads shuffle",
        metavar="MB",
        scale=1 << 20,
    )
    engine: Literal["local", "ray"] = option("local", "threads of this process, or Ray tasks (local)")
    ray_address: str | None = option(
        None, "use this Ray cluster; auto: the cluster of this node (default: start one on this machine)", metavar="HOST:PORT"
    )
    work: str | None = option(None, "local folder for the work in progress (D/.work)", metavar="W")
    overwrite: bool = option(False, "replace the data set in the output folder")

    @property
    def work_folder(self) -> str:
        return self.work or inside(self.output, WORK)

    @property
    def from_stdin(self) -> bool:
        return STDIN in self.inputs


def check_options(options: Options) -> None:
    """Checks ranges and combinations.

    Raises:
        UserError: a value is out of range, or two options exclude each other; names the option.
    """
    one, hashed = options, options.ids == "hash"
    for name in ("min_count", "rows_per_shard", "row_group_rows", "block_bytes"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected 1 or more")
    wrong = {
        f"--max-ids is {one.max_ids}, expected 1 or more": one.max_ids is not None and one.max_ids < 1,
        f"--block-kb is {one.block_bytes >> 10}, expected at most {MAX_BLOCK >> 10}": one.block_bytes > MAX_BLOCK,
        f"--workers is {one.workers}, expected 1 or more, or 0 for one a core": one.workers < 0,
        f"--max-bad-share is {one.max_bad_share}, expected 0 .. 1": not 0 <= one.max_bad_share <= 1,
        f"--input {' '.join(one.inputs)}: '-' (standard input) must be the only input": one.from_stdin and len(one.inputs) > 1,
        f"--output {one.output}: remote; name a local folder for the work in progress with --work": is_remote(one.output) and not one.work,
        f"--work {one.work}: remote, expected a local folder": one.work and is_remote(one.work),
        f"--vocabulary {one.vocabulary}: is the output too; name another --output": (
            one.vocabulary and one.vocabulary.rstrip("/") == one.output.rstrip("/")
        ),
        "--schema: give a schema file, or --vocabulary with a data set that keeps its own": not one.schema and not one.vocabulary,
        "--ray-address goes with --engine ray": one.ray_address and one.engine != "ray",
        "--ids hash needs --hash-size, the rows of a table": hashed and one.hash_size is None,
        "--hash-size goes with --ids hash": not hashed and one.hash_size is not None,
        "--ids hash and --vocabulary exclude each other: hashed ids need no vocabulary": hashed and one.vocabulary,
        "--new-tokens append goes with --vocabulary, a data set whose ids are kept": one.new_tokens == "append" and not one.vocabulary,
        "--scoring and --new-tokens append exclude each other: a model has no embedding of a new id": (
            one.scoring and one.new_tokens == "append"
        ),
        "--scoring needs the ids that the model was trained with: --vocabulary D, the training data set": (
            one.scoring and not (one.vocabulary or hashed)
        ),
        "--validation-days and --test-days go with --split-by day": one.split_by != "day" and (one.validation_days or one.test_days),
        f"--negatives is {one.negatives}, expected a share above 0 and at most 1, and no --scoring": (
            one.negatives is not None and (not 0 < one.negatives <= 1 or one.scoring)
        ),
        "--shuffle and --scoring exclude each other: scores keep the log's order": one.shuffle and one.scoring,
        "--split-key goes with --split-by key, and not with --scoring": one.split_key and (one.split_by != "key" or one.scoring),
        "--validation-days and --test-days: expected 0 or more": one.validation_days < 0 or one.test_days < 0,
    }
    if first := next((message for message, found in wrong.items() if found), ""):
        raise UserError(first)
    parse_shares(options.split)


def deciding(options: Options) -> dict[str, Any]:
    """The options that decide the data set's bytes, without those that have no effect. The contents of the vocabulary are not included."""
    names = ["rows_per_shard", "row_group_rows"]
    if options.ids == "counted" and (not options.vocabulary or options.new_tokens == "append"):
        names = ["min_count", *(["max_ids"] if options.max_ids else []), *names]
    out = {name: getattr(options, name) for name in names}
    if options.scoring:
        out["scoring"] = True
    else:
        out["split_by"] = options.split_by
        if options.split_by == "day":
            out |= {"validation_days": options.validation_days, "test_days": options.test_days}
        else:
            out["split"] = ",".join(str(share) for share in parse_shares(options.split))
        named = {"split_key": options.split_key, "negatives": options.negatives, "shuffle": options.shuffle or None}
        out |= {name: value for name, value in named.items() if value is not None}
        if options.split_by in ("random", "key") or options.negatives is not None or options.shuffle:
            out["seed"] = options.seed
    if options.vocabulary:
        out |= {"vocabulary": options.vocabulary, "new_tokens": options.new_tokens}
    if options.hash_size is not None:
        out |= {"ids": options.ids, "hash_size": options.hash_size}
    return out
