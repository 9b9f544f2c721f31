"""What a run of preprocessing is asked to do, checked; and which of it decides the data set's bytes."""

from dataclasses import dataclass
from typing import Any, Literal

from dmoe.data.hashing import parse_sizes
from dmoe.data.run_options import RunOptions, check_run
from dmoe.data.split import parse_shares
from dmoe.errors import UserError


@dataclass(frozen=True)
class Options(RunOptions):
    """
    Args:
        vocabulary: a data set whose ids are kept; `new_tokens` says what becomes of tokens that it does not have.
        ids: `counted` from the train split, or by `hash` into `hash_size` rows a table (dmoe.data.hashing.parse_sizes).
        scoring: with the ids of `vocabulary`, or by hash.
        validation_days, test_days: of `split_by` day; both 0 for the halves of the last day.
        engine: this process's threads, or Ray: a cluster at `ray_address` (`auto`: the one that this node is of), or one started here.
            Neither decides the data set's bytes.
    """

    split_by: Literal["random", "time", "day"] = "random"
    validation_days: int = 0
    test_days: int = 0
    new_tokens: Literal["rare", "append"] = "rare"
    ids: Literal["counted", "hash"] = "counted"
    hash_size: str | None = None

    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None


def check_options(options: Options) -> None:
    """
    Raises:
        UserError: a value out of range, or options that exclude each other.
    """
    check_run(options)
    if options.ray_address and options.engine != "ray":
        raise UserError("--ray-address goes with --engine ray")
    _check_ids(options)
    if options.split_by != "day" and (options.validation_days or options.test_days):
        raise UserError("--validation-days and --test-days go with --split-by day")
    if options.validation_days < 0 or options.test_days < 0:
        raise UserError("--validation-days and --test-days: expected 0 or more")


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
