"""Saves under one plan, layout and number of ranks, and loads under another; tests call these functions on every rank."""

from typing import Any

import numpy as np

from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.save import save_checkpoint
from dmoe.testing.small_run import dense_weights, open_small, small_config, train_steps, whole_tables

BEFORE, AFTER = 6, 6
"""Steps before the checkpoint and after it."""
Told = tuple[list[float], dict[str, np.ndarray], dict[str, np.ndarray]]


def undisturbed(data: str, *overrides: str) -> Told:
    """Losses after step BEFORE, and the final weights, of a run without interruption."""
    session = open_small(small_config(data, *overrides))
    losses = train_steps(session, BEFORE + AFTER)
    return losses[BEFORE:], whole_tables(session), dense_weights(session)


def save(data: str, folder: str, *overrides: str) -> dict[str, np.ndarray]:
    """Trains and saves; returns all saved tensors, see `everything`."""
    session = open_small(small_config(data, *overrides))
    train_steps(session, BEFORE)
    save_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers, {"step": BEFORE})
    return everything(session)


def load_and_go_on(data: str, folder: str, *overrides: str) -> tuple[dict[str, np.ndarray], Told]:
    """Loads a checkpoint and continues; returns all loaded tensors, and the same results as `undisturbed`."""
    # Another seed gives other initial weights, which shows that all weights are loaded. The order of rows needs the seed of the saved run.
    session = open_small(small_config(data, "train.seed=7", *overrides))
    session.config = small_config(data, *overrides)
    return _go_on(session, folder)


def load_again_and_go_on(data: str, folder: str, *overrides: str) -> tuple[dict[str, np.ndarray], Told]:
    """Like `load_and_go_on`, but loads into the model of the last call with the same overrides, which has other weights and states.

    This saves building the model, which takes most of the time of a case in the whole matrix of checkpoints and plans.
    """
    if overrides not in _kept:
        _kept.clear()
        _kept[overrides] = open_small(small_config(data, "train.seed=7", *overrides))
        _kept[overrides].config = small_config(data, *overrides)
    return _go_on(_kept[overrides], folder)


_kept: dict[tuple[str, ...], Any] = {}


def _go_on(session: Any, folder: str) -> tuple[dict[str, np.ndarray], Told]:
    progress = load_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers)
    loaded = everything(session)
    losses = train_steps(session, AFTER, start_row=progress["step"] * session.config.train.batch_size)
    return loaded, (losses, whole_tables(session), dense_weights(session))


def everything(session: Any) -> dict[str, np.ndarray]:
    tables = whole_tables(session, states=True)
    dense = {f"optimizer/{name}": value.cpu().numpy().copy() for name, value in session.optimizers.dense_state().items()}
    return tables | dense_weights(session) | dense
