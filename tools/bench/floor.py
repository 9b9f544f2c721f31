"""What a step cannot do without, as work to be timed alone: bytes of rows, of the dense optimizer; the correlation loss; a batch read."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dmoe.model.losses.correlation import CorrelationLoss
from tools.bench.case import EXPERT_DIM, Case, make_batches


class Memory:
    """Work that only moves the bytes that a step must move."""

    def __init__(self, case: Case, dense: int, device: torch.device) -> None:
        self.ids = make_batches(case, 0, 1)[0].sparse.values().view(case.features, -1).to(device)
        columns = case.sets * case.dim
        self.tables = [torch.zeros(case.rows, columns, device=device) for _ in range(case.features)]
        self.states = [torch.zeros(case.rows, columns, device=device) for _ in range(case.features)]
        self.out = torch.zeros(self.ids.shape[1], columns, device=device)
        # Forward reads each looked-up row; the step reads and writes each distinct one and its state. Results are written once each.
        self.distinct = [ids.unique() for ids in self.ids]
        self.row_bytes = (2 * self.ids.numel() + 6 * sum(len(ids) for ids in self.distinct)) * columns * 4
        # Adam reads a parameter, its gradient and two moments, and writes all but the gradient.
        self.optimizer_bytes = 7 * dense * 4
        self.source = torch.zeros(self.optimizer_bytes // 8, device=device)
        self.target = torch.zeros_like(self.source)

    def rows(self) -> None:
        for ids, distinct, table, state in zip(self.ids, self.distinct, self.tables, self.states, strict=True):
            torch.index_select(table, 0, ids, out=self.out)
            part = self.out[: len(distinct)]
            for rows in (table, state):
                torch.index_select(rows, 0, distinct, out=part)
                rows.index_copy_(0, distinct, part)

    def optimizer(self) -> None:
        self.target.copy_(self.source)


def correlation(case: Case, device: torch.device) -> Callable[[], None]:
    """The correlation loss of a batch alone, forward and backward, as a step adds it to the experts' outputs."""
    loss = CorrelationLoss()
    outputs_BMD = torch.randn(case.batch // case.ranks, len(case.expert_specs()), EXPERT_DIM, device=device, requires_grad=True)
    mask_B = torch.ones(len(outputs_BMD), device=device)

    def call() -> None:
        outputs_BMD.grad = None
        loss(outputs_BMD, mask_B).loss.backward()

    return call


def reader_seconds(case: Case, shuffle: str, rows: int = 262_144) -> float:
    """CPU seconds in which dmoe's reader makes one batch of a made log in the page cache: the median of three passes."""
    from tools.bench.reader import read, write

    with tempfile.TemporaryDirectory() as folder:
        manifest = write(Path(folder), rows, 65_536)
        taken = []
        for _ in range(3):
            start = time.process_time()
            batches = sum(1 for _ in read(folder, manifest, shuffle, case.batch))
            taken.append((time.process_time() - start) / batches)
    return sorted(taken)[1]


def seconds(call: Callable[[], object], threads: int, device: torch.device) -> float:
    """Of one call: the device's between two events on a GPU, the process's CPU seconds with one thread, else wall-clock."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    clock = time.process_time if threads == 1 else time.perf_counter
    began = clock()
    call()
    return clock() - began
