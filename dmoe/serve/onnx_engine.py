"""The ONNX Runtime engine: computes the part of a scorer that follows the tables. It is faster than the torch engine, which is the
reference but has an overhead for each operation.

Shapes: B rows, F categorical features, I numeric features, C columns of all table sets.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np

from dmoe.errors import UserError, one_line
from dmoe.serve.export.format import ONNX_DENSE, ScorerFile
from dmoe.storage.paths import PATHS, join

DENSE, IDS, EMBEDDINGS, PROBABILITY, LOGIT = "dense", "ids", "embeddings", "probability", "logit"
INSTALL = "needs onnxruntime: install dmoe[onnx]"
PIECE = 256
"""Rows in a call: intermediate results stay in the cache of a core. 32 to 256 rows are about equally fast."""


def values_name(feature: str) -> str:
    return f"{feature}.values"


def lengths_name(feature: str) -> str:
    return f"{feature}.lengths"


def choose_engine(about: ScorerFile, asked: str | None) -> str:
    """Returns `asked`; by default `onnx` if the scorer has the graph and onnxruntime is installed, else `torch`.

    Raises:
        UserError: `onnx` is asked for, but the graph or onnxruntime is missing.
    """
    if asked == "onnx" and ONNX_DENSE not in about.files:
        raise UserError(f"engine onnx: the scorer has no {ONNX_DENSE}; export it with --format onnx")
    installed = find_spec("onnxruntime") is not None
    if asked == "onnx" and not installed:
        raise UserError(f"engine onnx: {INSTALL}")
    return asked or ("onnx" if ONNX_DENSE in about.files and installed else "torch")


class OnnxEngine:
    """Runs `dense.onnx` of a scorer. Embeddings are looked up by numpy, ten times as fast as by the graph of the whole scorer.

    Args:
        folder: folder of the scorer.
        threads: threads for a matrix product.

    Raises:
        UserError: ONNX Runtime cannot read the file.
    """

    def __init__(self, folder: str, about: ScorerFile, threads: int = 1) -> None:
        path = join(folder, ONNX_DENSE)
        self._session = open_session(path, threads)
        self._dense = bool(about.dense)
        if (names := [one.name for one in self._session.get_inputs()]) != [DENSE] * self._dense + [EMBEDDINGS]:
            raise UserError(f"{path}: of an older dmoe (its inputs are {one_line(', '.join(names), 80)}); export it again")

    def logits(self, dense_BI: np.ndarray, x_BFC: np.ndarray) -> np.ndarray:
        """The logit of each row, [B] float32. The arguments are contiguous float32 arrays."""
        given = {DENSE: dense_BI, EMBEDDINGS: x_BFC} if self._dense else {EMBEDDINGS: x_BFC}
        found: np.ndarray = self._session.run((LOGIT,), given)[0]
        return found


def open_session(path: str, threads: int = 1) -> Any:
    """Opens a file in ONNX Runtime.

    Raises:
        UserError: ONNX Runtime cannot read the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Spinning threads would take CPU time from the other worker processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(PATHS.get_local_path(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path}: ONNX Runtime cannot read it ({one_line(str(error), 200)}); export it again") from None
