"""Runs what follows a scorer's tables in ONNX Runtime, the faster of the two engines: torch's, the reference, pays for every operation.

Shapes: B rows, F categorical features, I numeric features, C columns of all table sets.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np

from dmoe.errors import UserError, one_line
from dmoe.paths import PATHS, join
from dmoe.serve.format import ONNX_DENSE, ScorerFile

DENSE, IDS, EMBEDDINGS, PROBABILITY, LOGIT = "dense", "ids", "embeddings", "probability", "logit"
INSTALL = "needs onnxruntime: install dmoe[onnx]"
PIECE = 256
"""Rows of a call: what lies between two operations stays in a core's cache. 32 to 256 are about as fast."""


def values_name(feature: str) -> str:
    return f"{feature}.values"


def lengths_name(feature: str) -> str:
    return f"{feature}.lengths"


def choose_engine(about: ScorerFile, asked: str | None) -> str:
    """`onnx` where the scorer has its graph and onnxruntime is installed, `torch` otherwise; or what is asked for.

    Raises:
        UserError: `onnx` is asked for and cannot be had.
    """
    if asked == "onnx" and ONNX_DENSE not in about.files:
        raise UserError(f"engine onnx: the scorer has no {ONNX_DENSE}; export it with --format onnx")
    installed = find_spec("onnxruntime") is not None
    if asked == "onnx" and not installed:
        raise UserError(f"engine onnx: {INSTALL}")
    return asked or ("onnx" if ONNX_DENSE in about.files and installed else "torch")


class OnnxEngine:
    """A scorer's `dense.onnx`. Rows are taken from the tables by numpy, ten times as fast as by the graph of the whole scorer.

    Args:
        folder: the scorer's.
        threads: of the matrix products.

    Raises:
        UserError: ONNX Runtime cannot read it.
    """

    def __init__(self, folder: str, about: ScorerFile, threads: int = 1) -> None:
        path = join(folder, ONNX_DENSE)
        self._session = open_session(path, threads)
        self._dense = bool(about.dense)
        if (names := [one.name for one in self._session.get_inputs()]) != [DENSE] * self._dense + [EMBEDDINGS]:
            raise UserError(f"{path}: of an older dmoe (its inputs are {one_line(', '.join(names), 80)}); export it again")

    def logits(self, dense_BI: np.ndarray, x_BFC: np.ndarray) -> np.ndarray:
        """The logit of each row, [B] float32, of float32 arrays without gaps."""
        given = {DENSE: dense_BI, EMBEDDINGS: x_BFC} if self._dense else {EMBEDDINGS: x_BFC}
        found: np.ndarray = self._session.run((LOGIT,), given)[0]
        return found


def open_session(path: str, threads: int = 1) -> Any:
    """An ONNX Runtime session of a file.

    Raises:
        UserError: ONNX Runtime cannot read it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # A thread that spins takes the core from the other worker processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(PATHS.get_local_path(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path}: ONNX Runtime cannot read it ({one_line(str(error), 200)}); export it again") from None
