"""Builds everything that training and evaluation need: the sharded model, optimizers and pipeline."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import DataParallelWrapper
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.distributed.types import ShardingEnv

from dmoe.config.config import Config
from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.manifest import Manifest
from dmoe.data.dataset.reading.reader import Reader
from dmoe.distributed import rank, world_size
from dmoe.metrics.evaluation import Evaluation
from dmoe.model.build import Blueprint, build_model, build_task, make_blueprint
from dmoe.model.losses.objective import TrainTask
from dmoe.processes.alive import note
from dmoe.sharding.plan.initialize import initialize_tables
from dmoe.sharding.plan.job_plan import kept_plan, plan_from_json, sharders
from dmoe.sharding.plan.qcomm import codecs_of
from dmoe.train.compiled import compile_dense
from dmoe.train.optimizer.optimizers import Optimizers, attach_table_optimizer


@dataclass
class Session:
    """A sharded model with its optimizers and pipeline. `plan` is the sharding plan as plain data, as written to the run directory."""

    config: Config
    manifest: Manifest
    blueprint: Blueprint
    device: torch.device
    task: TrainTask
    sharded: nn.Module
    optimizers: Optimizers
    pipeline: TrainPipelineSparseDist[Any, Any]
    plan: dict[str, Any]

    @cached_property
    def _evaluation(self) -> Evaluation:
        return Evaluation(self.config.metrics.auc, self.config.metrics.auc_bins, self.device)

    def evaluation(self) -> Evaluation:
        """The metrics, of no rows: one object for all evaluations, one at a time."""
        self._evaluation.reset()
        return self._evaluation

    @property
    def tables(self) -> list[Any]:
        return list(self.blueprint.tables)

    @property
    def dense(self) -> nn.Module:
        return self.task.model.mixture

    def reader(
        self,
        split: str,
        shuffled: bool = False,
        folder: str | None = None,
        manifest: Manifest | None = None,
        in_order: bool = False,
        plain: bool = False,
    ) -> Reader:
        """A reader of a split of the run's data set, or of another data set with the same schema.

        Args:
            shuffled: shuffle as `data.shuffle` says; else do not shuffle.
            in_order: read rows in the order of the files. Then every rank decodes all rows.
            plain: keep the ids of the data set; `on_device` then translates them for the model's lookups.
        """
        data = self.config.data
        return Reader(
            folder or data.path,
            manifest or self.manifest,
            split,
            self.blueprint.features,
            self.blueprint.dense,
            shuffle=data.shuffle if shuffled else "none" if in_order else "turns",
            window_row_groups=data.window_row_groups,
            seed=self.config.train.seed,
            prefetch=data.prefetch,
            pin_memory=self.device.type == "cuda",
            lookups=None if plain else self.blueprint.lookups,
        )

    def prepare_step(self, step: int, factor: float) -> None:
        """Sets what a step depends on: the factor of the learning rates, that of alpha, and the random numbers of dropout, which depend on
        seed, step and rank only, so that a resumed run draws the same ones."""
        self.optimizers.set_factor(factor)
        self.task.controls.alpha_factor = self.config.correlation.alpha_factor(step)
        torch.manual_seed((self.config.train.seed << 32) ^ (step * 4096 + rank()))

    def on_device(self, batch: Batch) -> Batch:
        """A batch of the caller, with ids and device as the model needs them."""
        lookups = self.blueprint.lookups
        return (batch if lookups is None else replace(batch, sparse=lookups(batch.sparse))).to(self.device)


class _Alone(DataParallelWrapper):
    """Used with a single rank, for which DistributedDataParallel would only copy the gradients."""

    def wrap(self, dmp: DistributedModelParallel, env: ShardingEnv, device: torch.device) -> None:
        dmp._dmp_wrapped_module = dmp._dmp_wrapped_module.to(device)


def open_session(config: Config, manifest: Manifest, device: torch.device) -> Session:
    """Builds the model on the meta device, makes or reads the plan, shards the tables, and initializes them shard by shard.

    Raises:
        UserError: the config does not fit the data set, the machine or the plan.
    """
    codecs = codecs_of(config, device)
    note("builds the model")
    blueprint = make_blueprint(config, manifest)
    tables = list(blueprint.tables)
    task = build_task(config, build_model(config, blueprint))
    if config.train.compile:
        compile_dense(task.model.mixture, device)
    attach_table_optimizer(task.model.embedding.ebc, tables, config.optimizer.tables, device)
    note(f"plans {len(tables):,} tables")
    kept = kept_plan(task, tables, config, device, manifest)
    plan = plan_from_json(kept, task, tables, device, config.sharding.plan or "plan")
    note(f"shards {len(tables):,} tables")
    alone = _Alone() if world_size() == 1 else None
    sharded = DistributedModelParallel(task, device=device, plan=plan, sharders=sharders(codecs), data_parallel_wrapper=alone)
    note("draws the initial weights")
    initialize_tables(sharded, tables, config.train.seed, config.model.embedding.init_std)
    dense = {name: parameter for name, parameter in task.model.mixture.named_parameters() if parameter.requires_grad}
    optimizers = Optimizers(sharded, tables, dense, config.optimizer.tables, config.optimizer.dense)
    pipeline: TrainPipelineSparseDist[Any, Any] = TrainPipelineSparseDist(sharded, optimizers, device)
    return Session(config, manifest, blueprint, device, task, sharded, optimizers, pipeline, kept)
