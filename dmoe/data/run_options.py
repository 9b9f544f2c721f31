"""What every run of preprocessing is asked to do, and what of it is checked whatever the log."""

from dataclasses import dataclass

from dmoe.data.sources import STDIN, is_remote
from dmoe.data.split import parse_shares
from dmoe.errors import UserError
from dmoe.paths import inside

WORK = ".work"


@dataclass(frozen=True)
class RunOptions:
    """The last group does not decide the data set's bytes: max_bad_share, block_bytes, workers, memory_limit, overwrite, work.

    Args:
        inputs: names, folders and globs, or `-` alone for standard input.
        output: the data set's folder; where it is remote, `work` names a local folder for the work in progress.
        vocabulary: a data set whose ids are kept.
        scoring: one split `score` of all rows, labelled or not.
    """

    inputs: list[str]
    output: str
    min_count: int = 10
    split: str = "0.8,0.1,0.1"
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
        return self.work or inside(self.output, WORK)

    @property
    def from_stdin(self) -> bool:
        return STDIN in self.inputs


def check_run(options: RunOptions) -> None:
    """
    Raises:
        UserError: a value out of range, or options that exclude each other; names the option.
    """
    for name in ("min_count", "rows_per_shard", "row_group_rows", "block_bytes"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected 1 or more")
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
    parse_shares(options.split)
