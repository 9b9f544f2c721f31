"""Saving under one plan, layout and number of ranks, loading under another: what the tests and the whole matrix run on every rank."""

from typing import Any

import numpy as np

from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.save import save_checkpoint
from dmoe.testing.small_run import dense_weights, open_small, small_config, train_steps, whole_tables

BEFORE, AFTER = 6, 6
"""Steps before the checkpoint and after it."""
Told = tuple[list[float], dict[str, np.ndarray], dict[str, np.ndarray]]


def undisturbed(data: str, *overrides: str) -> Told:
    """Losses after the checkpoint's step, and the weights at the end, of a run that was never stopped."""
    session = open_small(small_config(data, *overrides))
    losses = train_steps(session, BEFORE + AFTER)
    return losses[BEFORE:], whole_tables(session), dense_weights(session)


def save(data: str, folder: str, *overrides: str) -> dict[str, np.ndarray]:
    """Trains and saves; everything that was saved, tables and states of both optimizers, whole."""
    session = open_small(small_config(data, *overrides))
    train_steps(session, BEFORE)
    save_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers, {"step": BEFORE})
    return everything(session)


def load_and_go_on(data: str, folder: str, *overrides: str) -> tuple[dict[str, np.ndarray], Told]:
    """Loads; everything as it was loaded, and what `undisturbed` tells, of going on from there."""
    # Other initial weights than the saved run's prove that all of them were loaded; the rows have to come in the saved run's order.
    session = open_small(small_config(data, "train.seed=7", *overrides))
    session.config = small_config(data, *overrides)
    return _go_on(session, folder)


def load_again_and_go_on(data: str, folder: str, *overrides: str) -> tuple[dict[str, np.ndarray], Told]:
    """As `load_and_go_on`, into the model that the last call with these overrides left, whose weights and states are another run's.

    Building the model is most of a case's time, and the whole matrix loads every checkpoint into every plan.
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
