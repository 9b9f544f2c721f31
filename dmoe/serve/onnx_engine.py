"""Runs a scorer's exported graph in ONNX Runtime, the faster of the two engines: torch's, the reference, pays for every operation.

Shapes: B rows, F categorical features, I numeric features, V ids of all rows' bags.
"""

from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np

from dmoe.data.dataset.bags import Bags
from dmoe.errors import UserError, one_line
from dmoe.paths import PATHS, join
from dmoe.serve.format import ONNX, ScorerFile

DENSE, IDS, PROBABILITY, LOGIT = "dense", "ids", "probability", "logit"
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
    if asked == "onnx" and ONNX not in about.files:
        raise UserError(f"engine onnx: the scorer has no {ONNX}; export it with --format onnx")
    installed = find_spec("onnxruntime") is not None
    if asked == "onnx" and not installed:
        raise UserError(f"engine onnx: {INSTALL}")
    return asked or ("onnx" if ONNX in about.files and installed else "torch")


class OnnxEngine:
    """A scorer's `model.onnx`, whose tables stay mapped.

    Args:
        folder: the scorer's.
        threads: of the matrix products.

    Raises:
        UserError: ONNX Runtime cannot read it.
    """

    def __init__(self, folder: str, about: ScorerFile, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # A thread that spins takes the core from the other worker processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.bags = [one.name for one in about.features if one.pooling != "none"]
        self.dense = bool(about.dense)
        path = join(folder, ONNX)
        try:
            self._session = onnxruntime.InferenceSession(PATHS.get_local_path(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UserError(f"{path}: ONNX Runtime cannot read it ({one_line(str(error), 200)}); export it again") from None

    def logits(self, dense_BI: np.ndarray, ids_BF: np.ndarray, bags: Mapping[str, Bags]) -> np.ndarray:
        """The logit of each row, [B] float32; ids are in their range."""
        if len(ids_BF) <= PIECE:
            return self._run(dense_BI, ids_BF, bags)
        pieces = [slice(low, low + PIECE) for low in range(0, len(ids_BF), PIECE)]
        return np.concatenate([self._run(dense_BI[one], ids_BF[one], {name: bags[name][one] for name in self.bags}) for one in pieces])

    def _run(self, dense_BI: np.ndarray, ids_BF: np.ndarray, bags: Mapping[str, Bags]) -> np.ndarray:
        given = {IDS: ids_BF}
        if self.dense:
            given[DENSE] = dense_BI
        for name in self.bags:
            given[values_name(name)] = bags[name].values.astype(np.int64)
            given[lengths_name(name)] = bags[name].lengths
        found: np.ndarray = self._session.run((LOGIT,), given)[0]
        return found
