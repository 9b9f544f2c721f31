"""Reads the predictions that a run or an evaluation kept for its rows.

Shapes: N test rows, M experts.
"""

import math
import zipfile
from dataclasses import dataclass

import numpy as np

from dmoe.errors import UserError, one_line
from dmoe.storage.paths import PATHS, check_regular, inside

PREDICTIONS = "predictions.npz"


@dataclass(frozen=True)
class Predicted:
    """Predictions of a run for its test rows: logit [N], label [N] bool. `order` identifies the rows and their order. With
    `metrics.expert_predictions` also the logit [N, M] and the gate [N, M] of each expert; otherwise these are None."""

    logit: np.ndarray
    label: np.ndarray
    order: str
    expert_logit: np.ndarray | None = None
    gate: np.ndarray | None = None


def load_predictions(run: str, name: str = PREDICTIONS) -> Predicted:
    """Reads the predictions of a run with `metrics.predictions`.

    Raises:
        UserError: there are no predictions, or the file is damaged.
    """
    path = inside(run, name)
    if not PATHS.exists(path):
        raise UserError(f"{run}: no {name}; train it with --set metrics.predictions=true, which keeps every test row's logit")
    try:
        check_regular(path, path)
        with PATHS.open(path, "rb") as file, zipfile.ZipFile(file) as kept:
            of_experts = [_array(kept, part) for part in ("expert_logit", "gate") if f"{part}.npy" in kept.namelist()]
            found = Predicted(_array(kept, "logit"), _array(kept, "label"), str(_array(kept, "order")[()]), *of_experts)
    except (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({one_line(str(error))}); evaluate the run again with dmoe.evaluate") from None
    if found.logit.dtype.kind != "f" or found.label.dtype != bool or found.logit.ndim != 1 or found.logit.shape != found.label.shape:
        raise UserError(f"{path}: damaged (rows of logit and label do not fit); evaluate the run again with dmoe.evaluate")
    if of_experts and (len(of_experts) != 2 or any(x.ndim != 2 or x.dtype.kind != "f" or len(x) != len(found.logit) for x in of_experts)):
        raise UserError(f"{path}: damaged (rows of logits and experts do not fit); evaluate the run again with dmoe.evaluate")
    if not all(np.isfinite(x).all() for x in (found.logit, *of_experts)):
        raise UserError(f"{path}: damaged (a logit is not finite); evaluate the run again with dmoe.evaluate")
    return found


def _array(kept: zipfile.ZipFile, name: str) -> np.ndarray:
    """Reads an array of an npz file as `np.savez` writes it. np.load would allocate the size in the header, even if the file is smaller.

    Raises:
        ValueError: the array is compressed, or its size differs from the header.
    """
    info = kept.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with kept.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is of another version of numpy's format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        data = file.read()
    if dtype.hasobject or len(data) != math.prod(shape) * dtype.itemsize or not data:
        raise ValueError(f"{name} has {len(data):,} bytes, its header says {dtype} {list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape)
