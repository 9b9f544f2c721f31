"""The process group, the device, and collectives that carry gradients."""

import datetime
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dmoe.errors import UserError
from dmoe.processes.rendezvous import join

_T = TypeVar("_T")


def start(timeout_seconds: int = 600) -> torch.device:
    """Joins the process group that the launcher describes, or makes one of a single process, and picks this rank's device.

    NCCL and one GPU a rank where CUDA is there, else gloo on the CPU. The launcher's variables (RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR, MASTER_PORT) are those of torchrun and torchx.
    """
    timeout = datetime.timedelta(seconds=timeout_seconds)
    cuda = torch.cuda.is_available()
    backend = "cuda:nccl,cpu:gloo" if cuda else "gloo"
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if "RANK" in os.environ else 0
    if cuda:
        if local_rank >= torch.cuda.device_count():
            raise UserError(f"rank {os.environ['RANK']}: local rank {local_rank}, but this host has {torch.cuda.device_count()} GPUs")
        # Before anything that takes the current device for this rank's.
        torch.cuda.set_device(local_rank)
    if "RANK" in os.environ:
        store, rank, ranks = join(timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout)
    else:
        # TorchRec's planner reads these two; a single process has no launcher to set them.
        os.environ.setdefault("LOCAL_WORLD_SIZE", "1")
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    return torch.device("cuda", local_rank) if cuda else torch.device("cpu")


def start_alone() -> None:
    """Makes a group of this process alone, unless the process is in a group already."""
    if not dist.is_initialized():
        backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def device_of_this_rank() -> torch.device:
    """The GPU of this rank, by its local rank, where there are GPUs; else the CPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def stop() -> None:
    """Leaves the process group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world_size() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum over ranks, in place; without gradient."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def broadcast_object(value: Any) -> Any:
    """Rank 0's value on every rank. The ranks are one program: what is unpickled comes from none but ourselves."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def first_problem(problem: str | None) -> str | None:
    """The first rank's problem, on all ranks; None where none has one. Every rank has to call it."""
    if world_size() == 1:
        return problem
    problems: list[str | None] = [None] * world_size()
    dist.all_gather_object(problems, problem)
    return next((found for found in problems if found), None)


def on_every_rank(action: Callable[[], _T]) -> _T:
    """Calls a function on every rank, and returns its result on each. All ranks must call this.

    Raises:
        UserError: on every rank, if the function raises it on some ranks; the message is that of the first of them.
    """
    made: Any = None
    problem = None
    try:
        made = action()
    except UserError as error:
        problem = str(error)
    if problem := first_problem(problem):
        raise UserError(problem)
    return made


def on_rank_0(action: Callable[[], _T]) -> _T:
    """Calls it on rank 0 alone, and gives its result to all ranks; every rank has to call this.

    Raises:
        UserError: on every rank, where rank 0's call raises it.
    """
    result: tuple[Any, str | None] = None, None
    if rank() == 0:
        try:
            result = action(), None
        except UserError as error:
            result = None, str(error)
    value, problem = broadcast_object(result)
    if problem is not None:
        raise UserError(problem)
    made: _T = value
    return made


class _AllGatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gathered = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(gathered, x.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every rank used every row, so a row's gradient is the sum over ranks (lightly issue 1528: without it, 1/W too small).
        return all_reduce_sum(grad.contiguous()).chunk(world_size())[rank()]


def all_gather_rows(x: Tensor) -> Tensor:
    """Every rank's rows one after another, [W * B, ...] from [B, ...]; the gradient sums over ranks. B is equal on all ranks."""
    return _AllGatherRows.apply(x) if world_size() > 1 else x


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BP: Tensor, mask_B: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        kept_BP = x_BP * mask_B[:, None]
        # Sums in float64: they cost nothing, and their cancellation is what ruins a covariance.
        sums = all_reduce_sum(torch.cat([kept_BP.sum(0, dtype=torch.float64), mask_B.sum(dtype=torch.float64)[None]]))
        rows = sums[-1]
        mean_P = (sums[:-1] / rows.clamp(min=1)).to(x_BP.dtype)
        centred_BP = torch.addcmul(kept_BP, mask_B[:, None], mean_P, value=-1)
        above = _above(x_BP.shape[1], groups)
        products = [(centred_BP[:, group].T @ centred_BP[:, later]).flatten() for group, later in above]
        variances_P, *blocks = all_reduce_sum(torch.cat([centred_BP.square().sum(0), *products])).split(
            [x_BP.shape[1], *(len(product) for product in products)]
        )
        scatter_PP = torch.diag(variances_P)
        for (group, later), block in zip(above, blocks, strict=True):
            scatter_PP[group, later] = block.view_as(scatter_PP[group, later])
        ctx.groups = groups
        ctx.save_for_backward(centred_BP)
        ctx.mark_non_differentiable(mean_P, rows)
        return scatter_PP, mean_P, rows

    @staticmethod
    def backward(ctx: Any, grad_PP: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        (centred_BP,) = ctx.saved_tensors
        both_PP = torch.diag(2 * grad_PP.diagonal())
        for group, later in _above(len(grad_PP), ctx.groups):
            both_PP[group, later] = grad_PP[group, later]
            both_PP[later, group] = grad_PP[group, later].T
        # The mean's own gradient vanishes, as centred columns sum to 0. W, because every rank holds the same global loss and
        # DistributedDataParallel will average what each makes of it (lightly issues 1977, 1920).
        return centred_BP @ (world_size() * both_PP), None, None


def _above(columns: int, groups: int) -> list[tuple[slice, slice]]:
    """Of a matrix of groups by groups: each group with all that follow it."""
    width = columns // groups
    return [(slice(start, start + width), slice(start + width, None)) for start in range(0, columns - width, width)]


def global_scatter(x_BP: Tensor, mask_B: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """The scatter matrix sum_i (x_i - mean)(x_i - mean)^T over the rows of all ranks, from all-reduced moments.

    Made are its diagonal and, above it, what belongs to two groups of columns; within a group and below the diagonal it is 0. Sends
    P + 1 and then P + G (G - 1) / 2 * (P / G)^2 numbers, whatever the batch, and nothing in the backward pass.

    Args:
        x_BP: [B, P] this rank's rows, float32 or float64.
        mask_B: [B] 1 for a row, 0 for padding.
        groups: G, of P / G columns each.

    Returns:
        scatter [P, P], whose gradient reaches this rank's rows times the world size; mean [P]; rows [] float64.
    """
    scatter_PP, mean_P, rows = _Scatter.apply(x_BP, mask_B, groups)
    return scatter_PP, mean_P, rows
