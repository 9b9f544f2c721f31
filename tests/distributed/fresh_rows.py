"""Rows that are made new in a model that was trained, run on every rank."""

import numpy as np

from dmoe.sharding.plan.initialize import initialize_rows
from dmoe.testing.resume import everything
from dmoe.testing.small_run import open_small, small_config, train_steps

Tensors = dict[str, np.ndarray]


def before_and_after(data: str, rows: dict[str, list[int]], *overrides: str) -> tuple[Tensors, Tensors, Tensors, float]:
    """Everything of a fresh model, of the trained one, and of that with new rows; and the loss of a further step."""
    config = small_config(data, *overrides)
    session = open_small(config)
    fresh = everything(session)
    train_steps(session, 4)
    trained = everything(session)
    given = {name: np.array(some, np.int64) for name, some in rows.items()}
    states_of = session.optimizers.states_of
    initialize_rows(session.sharded, session.tables, config.train.seed, config.model.embedding.init_std, given, states_of)
    renewed = everything(session)
    return fresh, trained, renewed, train_steps(session, 1)[0]
