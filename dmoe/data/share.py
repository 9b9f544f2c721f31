"""One share of the parsing: how several nodes of a cluster, or the tasks of a job array, make one data set on a disk that they share.

Share I of N parses the blocks whose number is I modulo N (of a compressed log, which is read from its start, the files) into the parts
that preprocessing keeps of every block; share 0 then waits for the others and does the rest. The bytes are those of a single process.
"""

import os
import re
import sys
import time
from dataclasses import dataclass

from dmoe.data.dataset.manifest import FILE
from dmoe.data.engine import Threads
from dmoe.data.inputs import Input, find_inputs
from dmoe.data.lock import alone
from dmoe.data.options import Options, check_options
from dmoe.data.preprocess import parts_folder
from dmoe.data.stage import stage
from dmoe.errors import UserError
from dmoe.paths import PATHS, join, no_links, write_text

POLL_SECONDS = 0.5
TELL_SECONDS = 60.0


@dataclass(frozen=True)
class Share:
    index: int
    count: int

    def takes(self, number: int, one: Input, block: int) -> bool:
        """Whether block `block` of input `number` belongs to the share."""
        return (number if one.compression else number + block) % self.count == self.index

    def mark(self, folder: str, index: int) -> str:
        return os.path.join(folder, f"share-{index}-of-{self.count}")


def read_share(text: str) -> Share:
    """Reads `2/8`, the third of eight.

    Raises:
        UserError: not of that form, or no such share.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise UserError(f"--share {text}: expected I/N with I of 0 .. N-1, such as 0/4")
    return Share(int(found[1]), int(found[2]))


def parse_share(options: Options, share: Share, stay: bool = False) -> None:
    """Parses a share and says so to share 0, which returns when all shares are parsed.

    Args:
        stay: another share than 0 returns when the data set is made. Slurm's `srun --wait`, as torchx sets it, ends a job's other
            nodes a minute after its first one.

    Raises:
        UserError: a mistake in the options or in the input.
    """
    check_options(options)
    if options.engine == "ray":
        raise UserError("--share and --engine ray exclude each other: Ray shares the work out by itself")
    if options.from_stdin:
        raise UserError("--share: standard input has no shares; name files that all nodes see")
    inputs = find_inputs(options.inputs, options.scoring)
    folder = parts_folder(options, inputs)
    if not options.overwrite and PATHS.exists(join(options.output, FILE)):
        return
    if not os.path.exists(share.mark(folder, share.index)):
        no_links(options.work_folder)
        with alone(os.path.join(options.work_folder, f"share-{share.index}"), options.output):
            engine = Threads(options.workers or os.cpu_count() or 1)
            # Too many bad lines are share 0's to tell: it sees them all, in order.
            stage(inputs, folder, options.block_bytes, engine, lambda *_: None, takes=share.takes)
            write_text(share.mark(folder, share.index), "", sync=False)
    print(f"share {share.index} of {share.count} is parsed", file=sys.stderr, flush=True)
    if share.index == 0:
        _wait_for_others(folder, share)
    elif stay:
        # The work's folder goes when the data set is there.
        while os.path.exists(share.mark(folder, share.index)):
            time.sleep(POLL_SECONDS)


def _wait_for_others(folder: str, share: Share) -> None:
    """No limit of its own: a task may wait in a queue. What ends the job when another task fails is the scheduler."""
    told = time.monotonic()
    while missing := [other for other in range(share.count) if not os.path.exists(share.mark(folder, other))]:
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            print(f"waiting for share {', '.join(map(str, missing))} of {share.count}", file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS)
