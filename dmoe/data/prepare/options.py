"""What a run of preprocessing is asked to do, checked; and which of it decides the data set's bytes."""

from dataclasses import MISSING, dataclass
from typing import Any, Literal

from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.raw_bytes import STDIN, is_remote
from dmoe.data.prepare.split.split_rules import parse_shares
from dmoe.errors import UserError
from dmoe.option import option
from dmoe.paths import inside

WORK = ".work"
MAX_BLOCK = 1 << 30
"""Bytes; places in a block are numbers of 32 bits."""


@dataclass(frozen=True)
class Options:
    """The last group does not decide the data set's bytes: from max_bad_share on.

    Args:
        inputs: names, folders and globs, or `-` alone for standard input.
        output: the data set's folder; where it is remote, `work` names a local folder for the work in progress.
        schema: of the log, or its file, or the name of one that dmoe brings along; where absent, that of `vocabulary`.
        where: what messages call the schema; dataset: the log's name in the manifest.
        vocabulary: a data set whose ids, schema and numbers are kept; `new_tokens` says what becomes of tokens that it does not have.
        ids: `counted` from the train split, or by `hash` into `hash_size` rows a table (dmoe.data.prepare.count.hashed_sizes.parse_sizes).
        scoring: one split `score` of all rows, labelled or not, with the ids of `vocabulary`, or by hash.
        validation_days, test_days: of `split_by` day; both 0 for the halves of the last day.
        engine: this process's threads, or Ray: a cluster at `ray_address` (`auto`: the one that this node is of), or one started here.
    """

    inputs: list[str] = option(
        MISSING,
        "files, folders or globs, local or s3://; text plain, gzip, zstd, bz2, xz, or a zip or tar of one file; - alone is standard input",
        flag="--input",
        metavar="F",
    )
    output: str = option(MISSING, "folder of the data set, local or s3://", metavar="D")
    schema: Schema | str | None = None
    where: str = ""
    dataset: str = ""
    vocabulary: str | None = option(None, "keep this data set's ids, schema and numbers", metavar="D")
    new_tokens: Literal["rare", "append"] = option("rare", "tokens that --vocabulary lacks: rare, or ids behind its own (rare)")
    ids: Literal["counted", "hash"] = option("counted", "by count, or by hash, which needs no counting (counted)")
    hash_size: str | None = option(None, "rows of a table for --ids hash", metavar="N[,C6=N]")
    min_count: int = option(10, "occurrences in the train split that earn a token its own id (%(default)s)")
    max_ids: int | None = option(None, "tokens of a feature that have an id of their own at most, the most frequent ones", metavar="N")
    split: str = option("0.8,0.1,0.1", "shares of train, validation and test (%(default)s)")
    split_by: Literal["random", "key", "time", "day"] = option(
        "random",
        "by a hash of seed and row; by key: of seed and the value of --split-key, so that all rows of one value are in one split; by the"
        " time column, or in the log's order; or by day, of the time column, or a file each: the last day's halves are validation and test"
        " (%(default)s)",
    )
    split_key: str | None = option(None, "of --split-by key: a column, such as the user's (the schema's split_key)", metavar="COLUMN")
    validation_days: int = option(0, "of --split-by day: whole days before the test days")
    test_days: int = option(0, "of --split-by day: whole days at the end")
    negatives: float | None = option(
        None, "keep this share of the train split's negatives, by a hash of seed and row; a kept one weighs 1 / share", metavar="SHARE"
    )
    shuffle: bool = option(False, "write the train split in one global random order")
    seed: int = option(0, "of the splits by random and key, of --negatives and --shuffle (0)")
    scoring: bool = option(False, "one split, 'score', of all rows; the log needs no labels")
    rows_per_shard: int = option(524_288, "rows of the log that a set of shards comes from (%(default)s)")
    row_group_rows: int = option(32_768, "rows of a parquet row group (%(default)s)")

    max_bad_share: float = option(0.001, "fail where more of the lines are malformed (%(default)s)")
    block_bytes: int = option(8 << 20, "text parsed at once (%(default)s); the bytes do not depend on it", flag="--block-kb", scale=1 << 10)
    workers: int = option(0, "threads, or Ray tasks at a time (one a core); the bytes do not depend on it")
    memory_limit: int = option(
        512 << 20,
        "for the counts, and for the rows of --shuffle (%(default)s), of each Ray task; more goes to disk, or to fewer threads",
        metavar="MB",
        scale=1 << 20,
    )
    engine: Literal["local", "ray"] = option("local", "threads of this process, or Ray's workers (local)")
    ray_address: str | None = option(None, "a Ray cluster; auto: this node's (one is started on this machine)", metavar="HOST:PORT")
    work: str | None = option(None, "local folder for the work in progress (D/.work)", metavar="W")
    overwrite: bool = option(False, "replace the data set that the output folder holds")

    @property
    def work_folder(self) -> str:
        return self.work or inside(self.output, WORK)

    @property
    def from_stdin(self) -> bool:
        return STDIN in self.inputs


def check_options(options: Options) -> None:
    """
    Raises:
        UserError: a value out of range, or options that exclude each other; names the option.
    """
    for name in ("min_count", "rows_per_shard", "row_group_rows", "block_bytes"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected 1 or more")
    if options.max_ids is not None and options.max_ids < 1:
        raise UserError(f"--max-ids is {options.max_ids}, expected 1 or more")
    if options.block_bytes > MAX_BLOCK:
        raise UserError(f"--block-kb is {options.block_bytes >> 10}, expected at most {MAX_BLOCK >> 10}")
    if options.workers < 0:
        raise UserError(f"--workers is {options.workers}, expected 1 or more, or 0 for one a core")
    if not 0 <= options.max_bad_share <= 1:
        raise UserError(f"--max-bad-share is {options.max_bad_share}, expected 0 .. 1")
    if options.from_stdin and len(options.inputs) > 1:
        raise UserError(f"--input {' '.join(options.inputs)}: '-' (standard input) stands alone")
    if is_remote(options.output) and not options.work:
        raise UserError(f"--output {options.output}: remote; name a local folder for the work in progress with --work")
    if options.work and is_remote(options.work):
        raise UserError(f"--work {options.work}: remote, expected a local folder")
    if options.vocabulary and options.vocabulary.rstrip("/") == options.output.rstrip("/"):
        raise UserError(f"--vocabulary {options.vocabulary}: is the output too; name another --output")
    if not options.schema and not options.vocabulary:
        raise UserError("--schema: give a schema file, or --vocabulary with a data set that keeps its own")
    if options.ray_address and options.engine != "ray":
        raise UserError("--ray-address goes with --engine ray")
    _check_ids(options)
    if options.split_by != "day" and (options.validation_days or options.test_days):
        raise UserError("--validation-days and --test-days go with --split-by day")
    if options.negatives is not None and (not 0 < options.negatives <= 1 or options.scoring):
        raise UserError(f"--negatives is {options.negatives}, expected a share above 0 and at most 1, and no --scoring")
    if options.shuffle and options.scoring:
        raise UserError("--shuffle and --scoring exclude each other: scores keep the log's order")
    if options.split_key and (options.split_by != "key" or options.scoring):
        raise UserError("--split-key goes with --split-by key, and not with --scoring")
    if options.validation_days < 0 or options.test_days < 0:
        raise UserError("--validation-days and --test-days: expected 0 or more")
    parse_shares(options.split)


def _check_ids(options: Options) -> None:
    hashed = options.ids == "hash"
    if hashed != (options.hash_size is not None):
        raise UserError("--ids hash needs --hash-size, the rows of a table" if hashed else "--hash-size goes with --ids hash")
    if hashed and options.vocabulary:
        raise UserError("--ids hash and --vocabulary exclude each other: hashed ids need no vocabulary")
    if options.new_tokens == "append" and not options.vocabulary:
        raise UserError("--new-tokens append goes with --vocabulary, a data set whose ids are kept")
    if options.scoring and options.new_tokens == "append":
        raise UserError("--scoring and --new-tokens append exclude each other: a model has no embedding of a new id")
    if options.scoring and not (options.vocabulary or hashed):
        raise UserError("--scoring needs the ids that the model was trained with: --vocabulary D, the training data set")


def deciding(options: Options) -> dict[str, Any]:
    """The options that decide the data set's bytes, but for the vocabulary's contents; those without effect are left out."""
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
