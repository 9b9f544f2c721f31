"""Builds a model from a config and a manifest. The modules of the model do not read the config; this file passes them plain values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.config.config import Config
from dmoe.data.dataset.compatibility import model_inputs
from dmoe.data.dataset.manifest import CategoricalFeature, Manifest
from dmoe.errors import UserError, nearest, one_line
from dmoe.model.assemble import assemble, check_memory, outline
from dmoe.model.embedding.embedding import MultiEmbedding
from dmoe.model.embedding.private_ids import HashedIds, PrivateIds
from dmoe.model.embedding.tables import Table, make_tables
from dmoe.model.expert_specs import expert_specs
from dmoe.model.losses.correlation import CorrelationLoss
from dmoe.model.losses.distillation import Distillation
from dmoe.model.losses.expert_losses import Agreement, Balance, Orthogonality, SelectorPenalty, Supervision
from dmoe.model.losses.objective import Objective, TrainTask
from dmoe.model.mixture import ExpertMixture
from dmoe.model.network import Network


@dataclass(frozen=True)
class Blueprint:
    """The description of a model that follows from a config and a manifest. No module is built yet.

    Attributes:
        features: the categorical features that the model looks up, in order.
        dense: names of the numeric features, in order.
        experts: (kind, options) of each expert.
        set_dims: dim of each table set.
        set_of_expert: the table set that each expert reads.
        tables: the physical tables.
    """

    features: tuple[CategoricalFeature, ...]
    dense: tuple[str, ...]
    experts: tuple[tuple[str, dict[str, Any]], ...]
    set_dims: tuple[int, ...]
    set_of_expert: tuple[int, ...]
    tables: tuple[Table, ...]

    @cached_property
    def lookups(self) -> Callable[[KeyedJaggedTensor], KeyedJaggedTensor] | None:
        """Converts the ids of a batch into those that the tables look up. None if the tables look up the ids unchanged."""
        names = [feature.name for feature in self.features]
        if experts := self.tables[0].readers:
            return HashedIds(names, [one.cardinality for one in self.features], [table.rows for table in self.tables], experts)
        bounds = {table.feature: table.rows for table in self.tables if table.private}
        return PrivateIds(names, [bounds[name] for name in names]) if bounds else None


def make_blueprint(config: Config, manifest: Manifest) -> Blueprint:
    """Makes the blueprint of the model.

    Raises:
        UserError: the data set lacks a feature, or the table sets are inconsistent.
    """
    names = {feature.name for feature in manifest.categorical}
    for name in config.data.features or []:
        if name not in names:
            raise UserError(f"data.features: no feature '{one_line(name)}' in the data set{nearest(name, names)}")
    inputs = model_inputs(config.data, manifest)
    features, dense = inputs.categorical, tuple(number.name for number in inputs.dense)
    if not features:
        raise UserError("data.features: the model would look up no feature at all")
    specs = expert_specs(config.model)
    embedding = config.model.embedding
    private = embedding.private_ids if embedding.sets == "light" else None
    hashed = embedding.hashed_rows if embedding.sets == "hashed" else None
    tables = make_tables(features, specs.set_dims, table_layout(config, len(specs.set_dims)), private, hashed)
    return Blueprint(features, dense, specs.experts, specs.set_dims, specs.set_of_expert, tuple(tables))


def table_layout(config: Config, sets: int) -> str:
    """The configured layout. `auto` is `wide`, but `separate` for row-wise Adagrad, whose state of a row must belong to one table set."""
    layout = config.model.embedding.layout
    if layout == "auto":
        return "separate" if config.optimizer.tables.kind == "rowwise_adagrad" and sets > 1 else "wide"
    return layout


def build_model(config: Config, blueprint: Blueprint, embedding_device: str = "meta") -> Network:
    """Builds the model with its tables on `embedding_device`. The dense weights depend only on `train.seed`.

    Raises:
        UserError: an expert that cannot be built, or a dense part that does not fit this machine.
    """
    return Network(MultiEmbedding(blueprint.tables, torch.device(embedding_device)), assemble_mixture(config, blueprint))


def assemble_mixture(config: Config, blueprint: Blueprint) -> ExpertMixture:
    """Builds the data-parallel part. Its weights depend only on `train.seed`. It is on the meta device if that is torch's default device.

    Raises:
        UserError: an expert that cannot be built, or a dense part that does not fit this machine.
    """
    mixture = outline_of(config, blueprint)
    if torch.get_default_device().type == "meta":
        return mixture
    check_memory(mixture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return assemble(**_parts(config, blueprint))


def outline_of(config: Config, blueprint: Blueprint) -> ExpertMixture:
    """Builds the dense part of the model on the meta device: parameters have names and shapes, but take no memory.

    Raises:
        UserError: an expert that cannot be built, or the size of a layer overflows.
    """
    return outline(**_parts(config, blueprint))


def _parts(config: Config, blueprint: Blueprint) -> dict[str, Any]:
    """The arguments of `assemble`."""
    return {
        "settings": config.model,
        "fields": len(blueprint.features),
        "dense": len(blueprint.dense),
        "experts": blueprint.experts,
        "set_dims": blueprint.set_dims,
        "set_of_expert": blueprint.set_of_expert,
        "bf16": config.train.precision == "bf16",
    }


def build_task(config: Config, model: Network) -> TrainTask:
    """Combines the model with the objective that the config describes."""
    settings = config.correlation
    correlation = CorrelationLoss(settings.estimator, settings.norm, settings.scope, settings.reduce)
    objective = Objective(
        correlation,
        settings.alpha,
        settings.target,
        config.optimizer.embedding_l2,
        within_class=settings.within_class,
        stop_below=settings.stop_below,
        terms=expert_terms(config),
        bce_weight=config.supervision.mixture_weight,
        distillation=distillation_of(config),
    )
    return TrainTask(model, objective, expert_logits=config.supervision.on)


def distillation_of(config: Config) -> Distillation | None:
    """The distillation loss, or None without a teacher. The teacher is a run, or in an online run the model before the window."""
    if config.distill.on:
        return Distillation(config.distill.weight, config.distill.temperature)
    return Distillation(config.online.teacher) if config.online.teacher else None


def expert_terms(config: Config) -> list[nn.Module]:
    """The losses that the config adds to the cross-entropy of the mixture and the correlation loss."""
    terms: list[nn.Module] = []
    if config.supervision.cross_entropy:
        terms.append(Supervision(config.supervision.cross_entropy))
    if (agreement := config.supervision.agreement) != "none":
        terms.append(Agreement(ensemble=agreement != "mutual", mutual=agreement != "ensemble"))
    special = config.specialisation
    if special.balance_weight:
        terms.append(Balance(special.balance_weight, special.balance))
    if special.orthogonality_weight:
        terms.append(Orthogonality(special.orthogonality_weight))
    if config.model.gate == "dselect_k":
        experts = len(config.model.experts)
        # If the number of experts is a power of two, every code of a selector belongs to an expert.
        reach = special.gate_reach_weight if experts & (experts - 1) else 0.0
        if special.gate_entropy_weight or reach:
            terms.append(SelectorPenalty(special.gate_entropy_weight, reach))
    return terms
