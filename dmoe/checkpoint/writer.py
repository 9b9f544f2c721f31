"""Checkpoints written beside training: a copy is taken at the step, a thread writes it, all ranks publish it together.

At most one is under way, so that memory holds one copy of a rank's part at most; a rank whose part is larger than the limit writes
it at once, from the model itself, while training waits.
"""

import copy
import math
import threading
from typing import Any

from torch import nn

from dmoe.checkpoint.index import Index, read_index
from dmoe.checkpoint.interfaces import CheckpointFolders, OptimizerStates
from dmoe.checkpoint.save import File, Part, files_of, prepare, publish, republish, write_part
from dmoe.distributed import local_world_size, rank
from dmoe.model.tables import Table
from dmoe.sections import CheckpointConfig

GIB = 1 << 30


class CheckpointWriter:
    """Writes a run's checkpoints. All ranks call its methods together, `finished` apart.

    Args:
        resumed: the step of the checkpoint that the run goes on from.

    Attributes:
        finished: how many writes of this rank's thread have ended; a number that a thread may read.
        under_way: a write that is not yet published.
    """

    def __init__(
        self,
        run: CheckpointFolders,
        model: nn.Module,
        tables: list[Table],
        dense: nn.Module,
        optimizers: OptimizerStates,
        config: CheckpointConfig,
        resumed: int | None = None,
    ) -> None:
        self.run, self.config = run, config
        self.model, self.tables, self.dense, self.optimizers = model, tables, dense, optimizers
        self.published = resumed
        self.begun = self.finished = 0
        self.under_way = False
        self._index: Index | None = None if resumed is None or rank() else read_index(run.checkpoint(resumed))
        self._progress: dict[str, Any] = {}
        self._part = Part([], {})
        self._thread: threading.Thread | None = None

    def save(self, progress: dict[str, Any]) -> None:
        """Begins a checkpoint of this moment; where it is already published with the same weights, gives it the new progress.

        Raises:
            UserError: on every rank, where any rank could not write this one or the one before.
        """
        self.finish()
        folder = self.run.checkpoint(progress["step"])
        self._progress = copy.deepcopy(progress)
        if self.published == progress["step"]:
            self._index = republish(folder, self._index, self._progress)
            return
        prepare(folder)
        self.begun, self.under_way = self.begun + 1, True
        files = files_of(self.model, self.tables, self.dense, self.optimizers)
        copies = self._copy(files) if self.config.asynchronous else None
        if copies is None:
            self._write(folder, files_of(self.model, self.tables, self.dense, self.optimizers))
        else:
            self._thread = threading.Thread(target=self._write, args=(folder, iter(copies)), daemon=True, name="checkpoint")
            self._thread.start()

    def finish(self) -> None:
        """Waits for the write under way, if there is one, publishes it, and removes what the policy does not keep.

        Raises:
            UserError: on every rank, where any rank could not write.
        """
        if not self.under_way:
            return
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.under_way = False
        step = self._progress["step"]
        self._index = publish(self.run.checkpoint(step), self._part, self.tables, self._progress)
        self.published = step
        self.run.prune(self.config.keep, self._progress["best_step"])

    def _copy(self, files: Any) -> list[File] | None:
        """Copies in the CPU's memory; None where they would take more than the config allows, or than there is."""
        copies, size = [], 0
        # The ranks of a machine copy at the same time.
        most = min(self.config.copy_gib * GIB, free_bytes() / local_world_size())
        for file in files:
            size += sum(tensor.nbytes for tensor in file.tensors.values())
            if size > most:
                return None
            try:
                copies.append(File(file.name, {key: tensor.to("cpu", copy=True) for key, tensor in file.tensors.items()}, file.pieces))
            except RuntimeError:
                # No memory (a limit on the process): written without a copy, as a part that is too large.
                return None
        return copies

    def _write(self, folder: str, files: Any) -> None:
        try:
            self._part = write_part(folder, files)
        except Exception as error:
            self._part = Part([], {}, f"rank {rank()}: cannot write the checkpoint {folder}: {type(error).__name__}: {error}")
        self.finished += 1


def free_bytes() -> float:
    """What this machine's processes can still take without swapping; infinite where the system does not tell."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return math.inf
