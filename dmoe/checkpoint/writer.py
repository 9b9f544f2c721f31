"""Asynchronous checkpoints: each rank copies its part at a step, a thread writes the copy, and all ranks publish the checkpoint together.

At most one checkpoint is written at a time, so there is at most one copy in memory. A rank whose part is larger than the limit writes it
directly from the model, while training waits.
"""

import copy
import math
import threading
from typing import Any

from torch import nn

from dmoe.checkpoint.index import Index, read_index
from dmoe.checkpoint.interfaces import OptimizerStates
from dmoe.checkpoint.of_run import folder_of, prune
from dmoe.checkpoint.save import File, Part, files_of, prepare, publish, republish, write_part
from dmoe.config.sections import CheckpointConfig
from dmoe.distributed import local_world_size, rank
from dmoe.model.embedding.tables import Table

GIB = 1 << 30


class CheckpointWriter:
    """Writes the checkpoints of a run. All ranks must call its methods together.

    Args:
        resumed: the step of the checkpoint from which the run is resumed.

    Attributes:
        begun, finished: number of writes of this rank that were started, and that have ended.
        under_way: whether there is a checkpoint that is not published yet.
    """

    def __init__(
        self,
        run: str,
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
        self._index: Index | None = None if resumed is None or rank() else read_index(folder_of(run, resumed))
        self._progress: dict[str, Any] = {}
        self._part = Part([], {})
        self._thread: threading.Thread | None = None

    def save(self, progress: dict[str, Any]) -> None:
        """Starts a checkpoint of the current weights. If this step is published already, only its progress is replaced.

        Raises:
            UserError: on every rank, if some rank could not write this checkpoint or the one before.
        """
        self.finish()
        folder = folder_of(self.run, progress["step"])
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
        """Waits for the checkpoint that is being written, if there is one, publishes it, and removes old checkpoints.

        Raises:
            UserError: on every rank, if some rank could not write.
        """
        if not self.under_way:
            return
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.under_way = False
        step = self._progress["step"]
        self._index = publish(folder_of(self.run, step), self._part, self.tables, self._progress)
        self.published = step
        if rank() == 0:
            prune(self.run, self.config.keep, self._progress["best_step"])

    def _copy(self, files: Any) -> list[File] | None:
        """Copies of the tensors in host memory; None if they would need more memory than the config allows or than is free."""
        copies, size = [], 0
        # All ranks of a host copy at the same time.
        most = min(self.config.copy_gib * GIB, free_bytes() / local_world_size())
        for file in files:
            size += sum(tensor.nbytes for tensor in file.tensors.values())
            if size > most:
                return None
            try:
                copies.append(File(file.name, {key: tensor.to("cpu", copy=True) for key, tensor in file.tensors.items()}, file.pieces))
            except RuntimeError:
                # Out of memory, because of a limit on the process: write without a copy.
                return None
        return copies

    def _write(self, folder: str, files: Any) -> None:
        try:
            self._part = write_part(folder, files)
        except Exception as error:
            self._part = Part([], {}, f"rank {rank()}: cannot write the checkpoint {folder}: {type(error).__name__}: {error}")
        self.finished += 1


def free_bytes() -> float:
    """Memory of this host that is available without swapping; infinite if the system does not report it."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return math.inf
