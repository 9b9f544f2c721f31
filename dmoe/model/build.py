"""From a config and a manifest to a model; the one place that reads the config on the model's behalf."""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from dmoe.config import Config
from dmoe.data.dataset.manifest import CategoricalFeature, Manifest
from dmoe.errors import UserError, nearest
from dmoe.model.assemble import assemble
from dmoe.model.correlation import CorrelationLoss
from dmoe.model.embedding import MultiEmbedding
from dmoe.model.network import ExpertMixture, Network
from dmoe.model.objective import Objective, TrainTask
from dmoe.model.tables import Table, make_tables
from dmoe.names import quoted


@dataclass(frozen=True)
class Blueprint:
    """What a config and a manifest say of a model, before anything is built.

    Attributes:
        features: the categorical features that it looks up, in order.
        dense: names of the numeric features, in order.
        experts: (kind, options) of each.
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


def make_blueprint(config: Config, manifest: Manifest) -> Blueprint:
    """Reads what the model will be.

    Raises:
        UserError: a feature that the data set has not, or a table set that does not fit.
    """
    names = {feature.name for feature in manifest.categorical}
    for name in config.data.features or []:
        if name not in names:
            raise UserError(f"data.features: no feature {quoted(name)} in the data set{nearest(name, names)}")
    wanted = set(config.data.features or names)
    buckets = config.data.dense in ("buckets", "both")
    features = tuple(f for f in manifest.categorical if f.name in wanted and (buckets or f.kind == "token"))
    if not features:
        raise UserError("data.features: the model would look up no feature at all")
    dense = tuple(f.name for f in manifest.dense) if config.data.dense in ("numeric", "both") else ()
    experts: list[tuple[str, dict[str, Any]]] = []
    sets: list[int] = []
    dims: dict[int, int] = {}
    for index, spec in enumerate(config.model.experts):
        kind, options = _expert_spec(spec, index)
        table_set = options.pop("table_set", index if config.model.embedding.sets == "per_expert" else 0)
        dim = options.pop("dim", config.model.embedding.dim)
        if dims.setdefault(table_set, dim) != dim:
            raise UserError(f"model.experts: expert {index + 1} wants dim {dim} of table set {table_set}, which has dim {dims[table_set]}")
        experts.append((kind, options))
        sets.append(table_set)
    if sorted(dims) != list(range(len(dims))):
        raise UserError(f"model.experts: table sets are {sorted(dims)}, expected 0 to {len(dims) - 1} without a gap")
    set_dims = tuple(dims[index] for index in range(len(dims)))
    tables = make_tables(features, set_dims, table_layout(config, len(set_dims)))
    return Blueprint(features, dense, tuple(experts), set_dims, tuple(sets), tuple(tables))


def table_layout(config: Config, sets: int) -> str:
    """`wide` unless the config or the optimiser wants otherwise: row-wise Adagrad keeps one state a row, so it must have one set a row."""
    layout = config.model.embedding.layout
    if layout == "auto":
        return "separate" if config.optimizer.tables.kind == "rowwise_adagrad" and sets > 1 else "wide"
    return layout


def _expert_spec(spec: str | dict[str, Any], index: int) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    options = copy.deepcopy(spec)
    kind = options.pop("kind", None)
    if not isinstance(kind, str):
        raise UserError(f"model.experts: expert {index + 1} names no 'kind'")
    for name in ("table_set", "dim"):
        if name in options and not (isinstance(options[name], int) and options[name] >= (name == "dim")):
            raise UserError(f"model.experts: expert {index + 1}: {name} is {options[name]!r}, expected a whole number")
    return kind, options


def build_model(config: Config, blueprint: Blueprint, embedding_device: str = "meta") -> Network:
    """The model, its tables on the meta device until they are sharded. Dense weights depend on `train.seed` alone."""
    return Network(MultiEmbedding(blueprint.tables, torch.device(embedding_device)), assemble_mixture(config, blueprint))


def assemble_mixture(config: Config, blueprint: Blueprint) -> ExpertMixture:
    """The data-parallel part; its weights depend on `train.seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return assemble(
            config.model,
            fields=len(blueprint.features),
            dense=len(blueprint.dense),
            experts=blueprint.experts,
            set_dims=blueprint.set_dims,
            set_of_expert=blueprint.set_of_expert,
            bf16=config.train.precision == "bf16",
        )


def build_task(config: Config, model: Network) -> TrainTask:
    """The model with the objective that the config asks for."""
    settings = config.correlation
    correlation = CorrelationLoss(settings.estimator, settings.norm, settings.scope, settings.reduce)
    objective = Objective(
        correlation,
        settings.alpha,
        settings.target,
        config.optimizer.embedding_l2,
        within_class=settings.within_class,
        stop_below=settings.stop_below,
    )
    return TrainTask(model, objective)
