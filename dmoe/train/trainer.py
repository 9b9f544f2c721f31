"""Training from Python with your own loop and batches: `dmoe.Trainer`.

Shapes: B rows of this rank.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.progress import Progress, progress_from
from dmoe.checkpoint.save import save_checkpoint
from dmoe.config.config import Config
from dmoe.config.strict import checked
from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.compatibility import check_compatible, model_inputs
from dmoe.data.dataset.dataset import Batches
from dmoe.data.dataset.manifest import Manifest
from dmoe.distributed import device_of_this_rank, start_alone
from dmoe.errors import UserError
from dmoe.model.dmoe import DMoE
from dmoe.model.losses.objective import Losses
from dmoe.sharding.plan.local_shards import copy_tables
from dmoe.train.optimizer.schedule import Schedule
from dmoe.train.session import Session, open_session
from dmoe.train.teacher import Teachers


class Callback:
    """Base class of callbacks of a Trainer. Override the methods that you need."""

    def on_step(self, trainer: "Trainer", losses: Losses) -> None:
        """Called after every step. `trainer.progress.step` includes the step."""

    def on_evaluation(self, trainer: "Trainer", figures: dict[str, Any]) -> None:
        """Called after every evaluation."""


class Trainer:
    """Shards a model over the ranks of the process group, and trains it with the batches of the caller.

    It sets no signal handler, environment variable or logger. If torch.distributed is not initialized, it creates a group with this process
    only. All ranks must make the same calls, with the same number of batches and rows.

    Args:
        model: a DMoE, whose weights are copied; or a config.
        manifest: of the data set, if `model` is a config.
        settings: config keys that override those of the model: `{"correlation": {"alpha": 0.1}, "optimizer": {...}, "sharding": {...}}`.
        total_steps: steps of the whole training, for a learning rate that decays and for teachers that take turns.
        device: of this rank. If absent, its GPU, or the CPU if there is no GPU.
        callbacks: called after every step and evaluation.

    Attributes:
        session: the sharded model, the optimizers and the plan.
        progress: the steps so far.

    Raises:
        UserError: the settings do not fit the model, or no plan fits the devices.

    Examples:
        >>> import dmoe, torch
        >>> from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
        >>> trainer = dmoe.Trainer(dmoe.DMoE(features={"user": 100}, experts=["crossnet", "mlp"], dim=8))
        >>> ids = KeyedJaggedTensor.from_lengths_sync(["user"], torch.arange(4), torch.ones(4, dtype=torch.int32))
        >>> batch = dmoe.Batch(torch.zeros(4, 0), ids, torch.tensor([0.0, 1.0, 0.0, 1.0]))
        >>> losses = [float(trainer.step(batch).bce) for _ in range(20)]
        >>> losses[-1] < losses[0]
        True
        >>> trainer.evaluate([batch])["auc"]
        1.0
    """

    def __init__(
        self,
        model: DMoE | Config,
        manifest: Manifest | None = None,
        settings: Mapping[str, Any] | None = None,
        total_steps: int | None = None,
        device: torch.device | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        config = model.config if isinstance(model, DMoE) else model
        if settings:
            config = checked(Config.model_validate, _merged(config.model_dump(), settings), "Trainer: settings")
        found = model.manifest if isinstance(model, DMoE) else manifest
        if found is None:
            raise UserError("Trainer: a config needs `manifest`, such as Dataset(path).manifest")
        start_alone()
        self.config, self.callbacks = config, list(callbacks)
        self.session: Session = open_session(config, found, device or device_of_this_rank())
        self.schedule = Schedule(config.optimizer.schedule, total_steps or config.train.max_steps or 1)
        self.progress = Progress(batch_size=config.train.batch_size)
        self.teachers = Teachers(self.session, self.schedule.total_steps) if config.distill.on else None
        if isinstance(model, DMoE):
            copy_tables(model.embedding.ebc, self.session.sharded, self.session.tables)
            self.session.dense.load_state_dict(model.mixture.state_dict())

    def step(self, batch: Batch) -> Losses:
        """One step: forward, backward, optimizers.

        Returns:
            The losses of the step, scalars on the device. `bce` is this rank's share times the number of ranks; the others are global.
        """
        session = self.session
        with self._prepared():
            session.optimizers.zero_grad()
            loss, (losses, *_) = session.sharded(next(iter(self._given([batch]))))
            loss.backward()
            session.optimizers.step()
        self._count(losses)
        return losses

    def fit(self, batches: Iterable[Batch]) -> Iterator[Losses]:
        """As `step` for each batch, while TorchRec's pipeline copies and distributes the next batches.

        Args:
            batches: if they come from `Dataset.batches`, it is checked that their ids mean the same as those of the model. Other batches,
                and those of `step`, cannot be checked.

        Raises:
            UserError: the data set has another vocabulary than the model; names the first feature that differs.

        Yields:
            The losses of each step. Take all of them: the pipeline must be drained before you call another method.
        """
        self._check(batches)
        session = self.session
        as_they_are = session.blueprint.lookups is None and self.teachers is None
        stream = iter(batches) if as_they_are else self._given(batches)
        try:
            while True:
                with self._prepared():
                    try:
                        losses, *_ = session.pipeline.progress(stream)
                    except StopIteration:
                        return
                self._count(losses)
                yield losses
        finally:
            session.pipeline.detach()

    def _given(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches as the model takes them, with the teacher's logits where there is one."""
        if self.teachers is not None:
            return self.teachers.taught(batches, self.progress.step)
        return map(self.session.on_device, batches)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, Any]:
        """The metrics over the rows of all ranks: `auc`, `logloss`, `ne`, `calibration`, `cec` and more (docs/science.md). A metric that is
        not defined is None.

        Raises:
            UserError: on all ranks. The model's output for some row is not finite (names the likely reason), or the ids of the batches mean
                something else than those of the model, as in `fit`.
        """
        self._check(batches)
        session = self.session
        evaluation = session.evaluation()
        session.sharded.eval()
        try:
            for batch in batches:
                _, (_, outputs, label_B, weight_B, group_B) = session.sharded(session.on_device(batch))
                evaluation.update(outputs, label_B, weight_B, group_B, batch.dense_BD)
        finally:
            session.sharded.train()
        figures = evaluation.compute(session.blueprint.dense)
        evaluation.reset()
        for callback in self.callbacks:
            callback.on_evaluation(self, figures)
        return figures

    def save(self, folder: str) -> None:
        """Writes a checkpoint: weights, optimizer states, progress. It can be loaded under any plan and number of ranks.

        Raises:
            UserError: it cannot be written.
        """
        session = self.session
        self.progress.schedule = self.schedule.state()
        save_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers, asdict(self.progress))

    def load(self, folder: str) -> None:
        """Loads a checkpoint, and continues from its step.

        Raises:
            UserError: the checkpoint is damaged, or belongs to another model or optimizer.
        """
        session = self.session
        kept = load_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers)
        self.progress = progress_from(kept, folder)
        self.schedule.load_state(self.progress.schedule)

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        session, step = self.session, self.progress.step
        session.sharded.train()
        devices = [session.device] if session.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            session.prepare_step(step, self.schedule.factor(step))
            yield

    def _check(self, batches: Iterable[Batch]) -> None:
        """Refuses batches of a data set whose ids mean something else. A model that was built from cardinalities (`dmoe.DMoE`) has no
        vocabulary to compare with."""
        read = model_inputs(self.config.data, self.session.manifest)
        if isinstance(batches, Batches) and any(one.identity for one in read.categorical):
            check_compatible(read, batches.inputs, batches.path, ordered=True)

    def _count(self, losses: Losses) -> None:
        self.progress.step += 1
        for callback in self.callbacks:
            callback.on_step(self, losses)


def _merged(tree: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `tree` with the values of `over`, merged recursively."""
    out = dict(tree)
    for key, value in over.items():
        out[key] = _merged(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), dict) else value
    return out
