"""Beginning from a checkpoint of smaller tables, run on every rank."""

import numpy as np

from dmoe.errors import UserError
from dmoe.testing.resume import BEFORE, everything
from dmoe.testing.small_run import open_small, small_config, train_steps
from dmoe.train.run.warm_start import begin_from

SEED = "train.seed=7"
"""Other initial weights than the checkpoint's run had: an old row that was not loaded would show."""
Tensors = dict[str, np.ndarray]


def fresh(data: str, *overrides: str) -> Tensors:
    return everything(open_small(small_config(data, SEED, *overrides)))


def begin_and_go_on(data: str, folder: str, *overrides: str) -> tuple[int, str, Tensors, list[float]]:
    """The steps before, what is said, everything as it was loaded, and the losses of going on."""
    session = open_small(small_config(data, SEED, *overrides))
    steps, line = begin_from(session, folder)
    loaded = everything(session)
    return steps, line, loaded, train_steps(session, BEFORE)


def refusal(data: str, folder: str, *overrides: str) -> str:
    session = open_small(small_config(data, *overrides))
    try:
        begin_from(session, folder)
    except UserError as error:
        return str(error)
    return ""
