"""What a run of preprocessing is asked to do, checked; and which of it decides the data set's bytes."""

from dataclasses import dataclass
from typing import Any, Literal

from dmoe.data.hashing import parse_sizes
from dmoe.data.sources import STDIN, is_remote
from dmoe.data.split import parse_shares
from dmoe.errors import UserError
from dmoe.paths import join

WORK = ".work"


@dataclass(frozen=True)
class Options:
    """The last group does not decide the data set's bytes: max_bad_share, block_bytes, workers, memory_limit, overwrite, work,
    engine, ray_address.

    Args:
        inputs: names, folders and globs, or `-` alone for standard input.
        output: the data set's folder; where it is remote, `work` names a local folder for the work in progress.
        vocabulary: a data set whose ids are kept; `new_tokens` says what becomes of tokens that it does not have.
        ids: `counted` from the train split, or by `hash` into `hash_size` rows a table (dmoe.data.hashing.parse_sizes).
        scoring: one split `score` of all rows, labelled or not, with the ids of `vocabulary`, or by hash.
        engine: this process's threads, or Ray: a cluster at `ray_address` (`auto`: the one that this node is of), or one started here.
        validation_days, test_days: of `split_by` day; both 0 for the halves of the last day.
    """

    inputs: list[str]
    output: str
    min_count: int = 10
    split: str = "0.8,0.1,0.1"
    split_by: Literal["random", "time", "day"] = "random"
    seed: int = 0
    validation_days: int = 0
    test_days: int = 0
    vocabulary: str | None = None
    new_tokens: Literal["rare", "append"] = "rare"
    ids: Literal["counted", "hash"] = "counted"
    hash_size: str | None = None
    scoring: bool = False
    rows_per_shard: int = 524_288
    row_group_rows: int = 32_768

    max_bad_share: float = 0.001
    block_bytes: int = 8 << 20
    workers: int = 0
    memory_limit: int = 512 << 20
    overwrite: bool = False
    work: str | None = None
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None

    @property
    def work_folder(self) -> str:
        return self.work or join(self.output, WORK)

    @property
    def from_stdin(self) -> bool:
        return STDIN in self.inputs


def check_options(options: Options) -> None:
    """
    Raises:
        UserError: a value out of range, or options that exclude each other.
    """
    for name, lowest in (("min_count", 1), ("rows_per_shard", 1), ("row_group_rows", 1), ("block_bytes", 1)):
        if getattr(options, name) < lowest:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected {lowest} or more")
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
    if options.ray_address and options.engine != "ray":
        raise UserError("--ray-address goes with --engine ray")
    _check_ids(options)
    if options.split_by != "day" and (options.validation_days or options.test_days):
        raise UserError("--validation-days and --test-days go with --split-by day")
    if options.validation_days < 0 or options.test_days < 0:
        raise UserError("--validation-days and --test-days: expected 0 or more")
    parse_shares(options.split)


def _check_ids(options: Options) -> None:
    hashed = options.ids == "hash"
    if hashed != (options.hash_size is not None):
        raise UserError("--ids hash needs --hash-size, the rows of a table" if hashed else "--hash-size goes with --ids hash")
    if options.hash_size is not None:
        parse_sizes(options.hash_size)
    if hashed and options.vocabulary:
        raise UserError("--ids hash and --vocabulary exclude each other: hashed ids need no vocabulary")
    if options.new_tokens == "append" and not options.vocabulary:
        raise UserError("--new-tokens append goes with --vocabulary, a data set whose ids are kept")
    if options.scoring and options.new_tokens == "append":
        raise UserError("--scoring and --new-tokens append exclude each other: a model has no embedding of a new id")
    if options.scoring and not (options.vocabulary or hashed):
        raise UserError("--scoring needs the ids that the model was trained with: --vocabulary D, the training data set")
    if options.vocabulary and options.vocabulary.rstrip("/") == options.output.rstrip("/"):
        raise UserError(f"--vocabulary {options.vocabulary}: is the output too; name another --output")


def deciding(options: Options) -> dict[str, Any]:
    """The options that decide the data set's bytes, but for the vocabulary's contents; those without effect are left out."""
    names = ["rows_per_shard", "row_group_rows"]
    if options.ids == "counted" and (not options.vocabulary or options.new_tokens == "append"):
        names = ["min_count", *names]
    out = {name: getattr(options, name) for name in names}
    if options.scoring:
        out["scoring"] = True
    else:
        out["split_by"] = options.split_by
        if options.split_by == "day":
            out |= {"validation_days": options.validation_days, "test_days": options.test_days}
        else:
            out["split"] = ",".join(str(share) for share in parse_shares(options.split))
        if options.split_by == "random":
            out["seed"] = options.seed
    if options.vocabulary:
        out |= {"vocabulary": options.vocabulary, "new_tokens": options.new_tokens}
    if options.hash_size is not None:
        out |= {"ids": options.ids, "hash_size": options.hash_size}
    return out
