"""What a run over a log with a schema is asked to do, checked."""

import os
from dataclasses import dataclass
from typing import Literal

from dmoe.data.log.schema import Schema
from dmoe.data.sources import is_remote
from dmoe.errors import UserError


@dataclass(frozen=True)
class LogOptions:
    """What decides the data set's bytes, then what does not.

    Attributes:
        schema: of the log; `where` names its file in messages, `dataset` in the manifest.
        vocabulary: a data set whose vocabulary and moments are used; `schema` is its schema.
        scoring: one split, `score`, of all rows, by `vocabulary`; labels may be absent.
    """

    inputs: list[str]
    output: str
    schema: Schema
    where: str
    dataset: str = "log"
    min_count: int = 10
    split: str = "0.8,0.1,0.1"
    split_by: Literal["random", "time"] = "random"
    seed: int = 0
    vocabulary: str | None = None
    scoring: bool = False
    rows_per_shard: int = 524_288
    row_group_rows: int = 32_768
    max_bad_share: float = 0.001
    block_bytes: int = 8 << 20
    workers: int = 0
    memory_limit: int = 512 << 20
    overwrite: bool = False
    work: str | None = None

    @property
    def work_folder(self) -> str:
        return self.work or os.path.join(self.output, ".work")


def check_options(options: LogOptions) -> None:
    """
    Raises:
        UserError: an option that cannot be, named.
    """
    for name in ("min_count", "rows_per_shard", "row_group_rows", "block_bytes"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected 1 or more")
    if options.workers < 0:
        raise UserError(f"--workers is {options.workers}, expected 1 or more, or 0 for one a core")
    if is_remote(options.output) and not options.work:
        raise UserError(f"--output {options.output}: name a local folder for the work in progress: --work W")
    if not 0 <= options.max_bad_share <= 1:
        raise UserError(f"--max-bad-share is {options.max_bad_share}, expected 0 .. 1")
