"""What a run over a log with a schema is asked to do, checked."""

from dataclasses import dataclass
from typing import Literal

from dmoe.data.log.schema import Schema
from dmoe.data.run_options import RunOptions, check_run
from dmoe.errors import UserError

MAX_BLOCK = 1 << 30
"""Bytes; places in a block are numbers of 32 bits."""


@dataclass(frozen=True, kw_only=True)
class LogOptions(RunOptions):
    """
    Attributes:
        schema: of the log; `where` names its file in messages, `dataset` in the manifest.
        vocabulary: a data set whose vocabulary, numbers and schema are kept; `schema` is its schema.
        scoring: by `vocabulary`; labels may be absent.
        split_by: random, or by the time column.
    """

    schema: Schema
    where: str
    dataset: str = "log"
    split_by: Literal["random", "time"] = "random"


def check_options(options: LogOptions) -> None:
    """
    Raises:
        UserError: an option that cannot be, named.
    """
    check_run(options)
    if options.block_bytes > MAX_BLOCK:
        raise UserError(f"--block-kb is {options.block_bytes >> 10}, expected at most {MAX_BLOCK >> 10}")
    if options.scoring and not options.vocabulary:
        raise UserError("--scoring: say by which data set's vocabulary: --vocabulary D")
