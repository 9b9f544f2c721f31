"""torch.compile of the dense part's experts, projections and gate, where a compiler is at hand."""

import torch

from dmoe.errors import UserError
from dmoe.model.mixture import ExpertMixture


def compile_dense(mixture: ExpertMixture, device: torch.device, backend: str = "inductor") -> None:
    """Has experts, projections and gate compiled when each is first called, for training and for evaluation, for every batch size.

    Parameters, their names and checkpoints stay as they are. On a CPU, an expert that works a piece of the rows at a time is left out:
    the compiler makes one large product of the pieces, and the whole step took 1.3 times as long.

    Args:
        backend: torch.compile's; `aot_eager` traces as inductor does and compiles nothing.

    Raises:
        UserError: no C++ compiler (CPU), or no Triton (GPU), is there.
    """
    if backend == "inductor":
        refuse_without_compiler(device.type)
    for part in (*mixture.experts, *mixture.projections, mixture.gate):
        if not (device.type == "cpu" and getattr(part, "in_pieces", False)):
            part.compile(dynamic=True, backend=backend)


def refuse_without_compiler(kind: str) -> None:
    """Says in one line what torch.compile lacks on a device of that kind."""
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
