"""Counts the bytes that this rank sends in collectives, from the tensors that are passed to them."""

from collections import Counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

GRADIENTS, WAITED = "all_reduce", "all_reduce of others"
"""Asynchronous all-reduces are those of DistributedDataParallel for gradients; the objective and the metrics use synchronous ones."""


class SentBytes(TorchDispatchMode):
    """A context manager that adds up in `sent` the bytes that this rank sends, by kind of collective.

    Reductions and gathers of n ranks are counted as rings, which NCCL and gloo use: (n - 1) / n of the total for a reduce-scatter or an
    all-gather, and twice that for an all-reduce. For an all-to-all, the rank's own part is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            kind, count = _leaving(str(func.overloadpacket).removeprefix("c10d."), args)
            self.sent[kind] += count
        return func(*args, **(kwargs or {}))


def _leaving(name: str, args: Any) -> tuple[str, int]:
    """Kind and bytes of one collective. For its arguments see torch (csrc/distributed/c10d/Ops.cpp)."""
    objects = [one for one in args if isinstance(one, torch.ScriptObject) and str(one._type()).endswith("ProcessGroup")]
    group = dist.ProcessGroup.unbox(objects[0]) if objects else None
    ranks, rank = (group.size(), group.rank()) if group is not None else (1, 0)
    if name == "alltoall_base_":
        source, splits = args[1], args[4]
        if not splits:
            return "all_to_all", bytes_of(source) * (ranks - 1) // ranks
        each = bytes_of(source) // max(source.shape[0], 1)
        return "all_to_all", (sum(splits) - splits[rank]) * each
    if name == "alltoall_":
        return "all_to_all", sum(bytes_of(part) for number, part in enumerate(args[1]) if number != rank)
    if name == "allreduce_":
        kind = GRADIENTS if len(args) < 5 or args[4] else WAITED
        return kind, 2 * sum(bytes_of(one) for one in args[0]) * (ranks - 1) // ranks
    if name in ("_reduce_scatter_base_", "reduce_scatter_", "reduce_scatter_tensor_coalesced_"):
        return "reduce_scatter", sum(bytes_of(one) for one in _flat(args[1])) * (ranks - 1) // ranks
    if name in ("_allgather_base_", "allgather_", "allgather_into_tensor_coalesced_"):
        return "all_gather", sum(bytes_of(one) for one in _flat(args[1])) * (ranks - 1)
    tensors = sum(bytes_of(one) for one in _flat(args))
    # The root of a broadcast sends everything once. Others (barriers, checks) are counted as they are.
    return name.strip("_"), tensors if name != "broadcast_" or args[2] == rank else 0


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in _flat(part)] if isinstance(value, (list, tuple)) else []


def bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
