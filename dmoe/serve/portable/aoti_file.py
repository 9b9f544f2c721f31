"""`dense.pt2`: the dense part compiled by AOTInductor, for use without Python.

Inputs, float32: `dense` [B, I], if the model has numeric features, and `embeddings` [B, F, C], all table sets side by side. Outputs:
probability [B] and logit [B].
"""

import os
import platform
import shlex
import shutil

import torch

from dmoe.errors import UserError, one_line
from dmoe.serve.export.format import AOTI
from dmoe.serve.portable.modules import DensePart
from dmoe.serve.portable.onnx_files import dynamic_shapes, example, quiet
from dmoe.serve.scorer import Scorer
from dmoe.storage.paths import join


def check_compiler() -> None:
    """Checks that a C++ compiler is installed.

    Raises:
        UserError: there is none.
    """
    command = shlex.split(os.environ.get("CXX", "g++"))
    if not command or shutil.which(command[0]) is None:
        raise UserError(f"--format aoti: no C++ compiler ({one_line(' '.join(command))}): install g++, or name one in CXX")


def write_aoti(scorer: Scorer) -> list[str]:
    """Compiles the dense part into the scorer's folder."""
    part = DensePart(scorer).eval()
    with quiet(), torch.no_grad():
        shapes = dynamic_shapes(part.inputs)
        program = torch.export.export(part, tuple(example(scorer, part.inputs)), dynamic_shapes=shapes, strict=False)
        torch._inductor.aoti_compile_and_package(program, package_path=join(scorer.folder, AOTI))
    return [AOTI]


def bound_to() -> str:
    """The CPU features that a compiled file needs. On a CPU without them it fails with an illegal instruction, or is slow."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
