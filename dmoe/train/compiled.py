"""Applies torch.compile to experts, projections and gate, if a compiler is installed."""

import torch

from dmoe.errors import UserError
from dmoe.model.mixture import ExpertMixture


def compile_dense(mixture: ExpertMixture, device: torch.device, backend: str = "inductor") -> None:
    """Compiles experts, projections and gate at their first call, with dynamic batch sizes.

    Parameters, their names and checkpoints do not change. On a CPU, an expert that processes its rows in pieces is not compiled: the
    compiler would join the pieces to one large product, and a step took 1.3 times as long.

    Args:
        backend: of torch.compile; `aot_eager` traces like inductor, but compiles nothing.

    Raises:
        UserError: there is no C++ compiler (CPU), or no Triton (GPU).
    """
    if backend == "inductor":
        refuse_without_compiler(device.type)
    for part in (*mixture.experts, *mixture.projections, mixture.gate):
        if not (device.type == "cpu" and getattr(part, "in_pieces", False)):
            part.compile(dynamic=True, backend=backend)


def refuse_without_compiler(kind: str) -> None:
    """Checks that torch.compile has what it needs on a device of this kind.

    Raises:
        UserError: names what is missing.
    """
    if kind == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise UserError(
                "train.compile: no Triton for this GPU; install the triton that belongs to this torch, or set train.compile=false"
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "train.compile: no C++ compiler (g++ or clang++) on this machine; install one, or set train.compile=false"
        ) from None
