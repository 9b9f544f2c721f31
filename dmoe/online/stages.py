"""The stages of a prepared window on all ranks: score it, initialize new rows, train on it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.reading.reader import Reader
from dmoe.distributed import all_reduce_sum, rank, world_size
from dmoe.online.windows.prepared import SPLIT, Window
from dmoe.sharding.plan.initialize import initialize_rows
from dmoe.sharding.plan.local_shards import LocalShard, local_shards
from dmoe.train.trainer import Trainer

KEPT_FIGURES = ("rows", "positives", "auc", "logloss", "ne", "calibration", "cec", "cec_floor", "gate_mass", "effective_experts", "gauc")
"""The evaluation figures that the ledger records for each window."""


def reader_of(trainer: Trainer, window: Window, rows: Mapping[str, np.ndarray], shuffled: bool) -> Reader:
    """A reader of the rows of a window; `rows` maps ids to table rows."""
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
    """Evaluates the model, with the weights that would be published, on the rows of a window. Every rank must call it.

    Args:
        rows: `window.test`, or `window.train` after training on the window.
        between: called before each batch.
        most_rows: evaluates only about this many rows from the beginning of the window.

    Raises:
        NotFinite: on all ranks, an output is not finite.
    """
    size = trainer.config.train.eval_batch_size
    steps = None if most_rows is None else max(most_rows // size, 1)
    batches = reader_of(trainer, window, rows, shuffled=False).batches(size, rank(), world_size(), max_steps=steps)
    with trainer.session.optimizers.averaged():
        figures = trainer.evaluate(_each(batches, between))
    return {name: figures[name] for name in KEPT_FIGURES if name in figures}


def learn(trainer: Trainer, window: Window, between: Callable[[], None]) -> dict[str, Any]:
    """Initializes the new rows of a window, and trains one epoch on it. Every rank must call it.

    Returns:
        `loss`, the mean cross-entropy of the batches before their steps; `steps`; `replayed`, the number of rows of the previous window.
    """
    session, config = trainer.session, trainer.config
    # An untrained model cannot be a teacher.
    taught = config.online.teacher and trainer.progress.step + trainer.progress.steps_before
    said = teach(trainer, _batches(trainer, window, window.test), between) if taught else None
    initialize_rows(
        session.sharded, session.tables, config.train.seed, config.model.embedding.init_std, window.born, session.optimizers.states_of
    )
    rates = RowRates(trainer, window.rates)
    batches = _batches(trainer, window, window.train)
    if said is not None:
        batches = (replace(batch, teacher_B=logit_B) for batch, logit_B in zip(batches, said, strict=True))
    total, steps = torch.zeros((), dtype=torch.float64, device=session.device), 0
    for losses in trainer.fit(batches):
        total, steps = total + losses.bce.double(), steps + 1
        between()
    replayed = _replay(trainer, window, between)
    rates.apply()
    trainer.progress.trained_rows += window.rows
    loss = float(all_reduce_sum(total)) / world_size() / max(steps, 1)
    return {"loss": loss, "steps": steps, **({"replayed": replayed} if replayed else {})}


def _batches(trainer: Trainer, window: Window, rows: Mapping[str, np.ndarray]) -> Iterator[Batch]:
    """This rank's part of the training batches of a window."""
    size = trainer.config.train.batch_size
    return reader_of(trainer, window, rows, shuffled=True).batches(size, rank(), world_size(), epoch=window.number)


@torch.no_grad()
def teach(trainer: Trainer, batches: Iterator[Batch], between: Callable[[], None]) -> list[Tensor]:
    """The teacher logits for each batch, [B] float32, from the weights that would be published. Every rank must call it."""
    session, said = trainer.session, []
    session.sharded.eval()
    try:
        with session.optimizers.averaged():
            for batch in _each(batches, between):
                _, (_, outputs, *_) = session.sharded(session.on_device(batch))
                said.append(outputs.logit_B.cpu())
    finally:
        session.sharded.train()
    return said


class RowRates:
    """A learning-rate factor for each row, which fused kernels do not support: the change of a row by the window is multiplied afterwards.

    Every rank creates one for its own shards before training on the window, and calls `apply` after it.

    Args:
        rates: feature -> (rows of its tables, ascending, [n] int64; their factors, [n] float32).
    """

    @torch.no_grad()
    def __init__(self, trainer: Trainer, rates: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        self.trainer, self.rates = trainer, rates
        self.before = [shard.weight[local] for shard, local, _ in self._shards()]

    @torch.no_grad()
    def apply(self) -> None:
        for (shard, local, factor_n1), old_nC in zip(self._shards(), self.before, strict=True):
            shard.weight[local] = old_nC.lerp_(shard.weight[local], factor_n1)

    def _shards(self) -> Iterator[tuple[LocalShard, Tensor, Tensor]]:
        """Yields each local shard, the indices of the affected rows in it, and their factors [n, 1]."""
        for shard in local_shards(self.trainer.session.sharded, self.trainer.session.tables) if self.rates else ():
            rows, factor_n = self.rates[shard.table.feature]
            some = slice(*np.searchsorted(rows, [shard.row, shard.row + len(shard.weight)]))
            local, factor_n1 = torch.from_numpy(rows[some] - shard.row), torch.from_numpy(factor_n[some, None])
            yield shard, local.to(shard.weight.device), factor_n1.to(shard.weight.device)


def _replay(trainer: Trainer, window: Window, between: Callable[[], None]) -> int:
    """Trains again on some rows of the previous window; returns their number."""
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
    """Multiplies the Adagrad sums of the tables, so that learning rates do not vanish. Every rank calls it for its own shards."""
    for shard in local_shards(trainer.session.sharded, trainer.session.tables):
        for name, state in trainer.session.optimizers.states_of(shard).items():
            if name == "sum":
                state.mul_(factor)


@torch.no_grad()
def norms(trainer: Trainer) -> dict[str, float]:
    """The norms of all embedding tables and of the dense part. Every rank must call it."""
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
