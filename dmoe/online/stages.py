"""What the ranks do with a prepared window: score it, make its new rows, learn from it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.reader import Reader
from dmoe.distributed import all_reduce_sum, rank, world_size
from dmoe.online.prepared import SPLIT, Window
from dmoe.sharding.plan.initialize import initialize_rows
from dmoe.sharding.plan.local_shards import local_shards
from dmoe.train.trainer import Trainer

KEPT_FIGURES = ("rows", "positives", "auc", "logloss", "ne", "calibration", "cec", "cec_floor", "gate_mass", "effective_experts", "gauc")
"""Of an evaluation, what the ledger keeps of each window."""


def reader_of(trainer: Trainer, window: Window, rows: Mapping[str, np.ndarray], shuffled: bool) -> Reader:
    """Reads a window's rows with the ids of the tables' rows."""
    session, data = trainer.session, trainer.config.data
    features = {one.name: one for one in window.manifest.categorical}
    return Reader(
        window.folder,
        window.manifest,
        SPLIT,
        [features[one.name] for one in session.blueprint.features],
        session.blueprint.dense,
        shuffle=data.shuffle if shuffled else "turns",
        window_row_groups=data.window_row_groups,
        seed=trainer.config.train.seed,
        prefetch=data.prefetch,
        pin_memory=session.device.type == "cuda",
        rows={one.name: rows[one.name] for one in session.blueprint.features if one.name in rows},
    )


def score(
    trainer: Trainer, window: Window, rows: Mapping[str, np.ndarray], between: Callable[[], None], most_rows: int | None = None
) -> dict[str, Any]:
    """The figures of the model as it is over a window's rows; every rank has to call it.

    Args:
        rows: `window.test`, or `window.train` of a window that was learned.
        between: called before each batch.
        most_rows: of the window, the first ones.

    Raises:
        NotFinite: on all ranks, an output is not finite.
    """
    size = trainer.config.train.eval_batch_size
    steps = None if most_rows is None else max(most_rows // size, 1)
    batches = reader_of(trainer, window, rows, shuffled=False).batches(size, rank(), world_size(), max_steps=steps)
    figures = trainer.evaluate(_each(batches, between))
    return {name: figures[name] for name in KEPT_FIGURES if name in figures}


def learn(trainer: Trainer, window: Window, between: Callable[[], None]) -> dict[str, Any]:
    """Makes the window's new rows, and one pass over it; every rank has to call it.

    Returns:
        `loss`, the mean cross-entropy of its batches before their steps; `steps` of them; `replayed` rows of the window before.
    """
    session, config = trainer.session, trainer.config
    initialize_rows(
        session.sharded, session.tables, config.train.seed, config.model.embedding.init_std, window.born, session.optimizers.states_of
    )
    batches = reader_of(trainer, window, window.train, shuffled=True).batches(
        config.train.batch_size, rank(), world_size(), epoch=window.number
    )
    total, steps = torch.zeros((), dtype=torch.float64, device=session.device), 0
    for losses in trainer.fit(batches):
        total, steps = total + losses.bce.double(), steps + 1
        between()
    replayed = _replay(trainer, window, between)
    trainer.progress.trained_rows += window.rows
    loss = float(all_reduce_sum(total)) / world_size() / max(steps, 1)
    return {"loss": loss, "steps": steps, **({"replayed": replayed} if replayed else {})}


def _replay(trainer: Trainer, window: Window, between: Callable[[], None]) -> int:
    """Learns again from some rows of the window before; how many."""
    older, size = window.replay, trainer.config.train.batch_size
    count = 0 if older is None else min(int(trainer.config.online.replay * window.rows), older.rows) // size
    if older is None or not count:
        return 0
    batches = reader_of(trainer, older, older.train, shuffled=True).batches(
        size, rank(), world_size(), epoch=window.number, max_steps=count
    )
    for _ in trainer.fit(batches):
        between()
    return count * size


def decay_states(trainer: Trainer, factor: float) -> None:
    """Multiplies the tables' Adagrad sums, so that the rows' learning rates do not vanish; every rank calls it for its own shards."""
    for shard in local_shards(trainer.session.sharded, trainer.session.tables):
        for name, state in trainer.session.optimizers.states_of(shard).items():
            if name == "sum":
                state.mul_(factor)


@torch.no_grad()
def norms(trainer: Trainer) -> dict[str, float]:
    """The norms of all embedding tables and of the dense part; every rank has to call it."""
    session = trainer.session
    squares = torch.zeros((), dtype=torch.float64, device=session.device)
    for shard in local_shards(session.sharded, session.tables):
        if not shard.replicated or rank() == 0:
            squares += torch.linalg.vector_norm(shard.weight, dtype=torch.float64).square()
    dense = sum(float(torch.linalg.vector_norm(one, dtype=torch.float64)) ** 2 for one in session.dense.parameters())
    return {"tables": float(all_reduce_sum(squares)) ** 0.5, "dense": dense**0.5}


def _each(batches: Iterator[Batch], between: Callable[[], None]) -> Iterator[Batch]:
    for batch in batches:
        between()
        yield batch
