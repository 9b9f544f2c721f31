"""Reference training steps in float64 on the CPU, without TorchRec and FBGEMM: look-ups by indexing, autograd, and optimizers by formula.

The stages `kernels` and `host memory` are compared with it. Shapes: N rows of the global batch, F fields, K dims.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmoe.accept.stages.dense import correlation_of
from dmoe.config.config import Config
from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.manifest import load_manifest
from dmoe.model.build import build_model, make_blueprint
from dmoe.sharding.plan.initialize import initial_block

Told = tuple[list[float], dict[str, np.ndarray], dict[str, np.ndarray]]


def train_reference(config: Config, steps: int) -> Told:
    """Trains the first steps of a config; returns losses, logical tables and dense parameters.

    The dense optimizer must be SGD, and each table must have at most one block of initial rows.
    """
    manifest = load_manifest(config.data.path)
    blueprint = make_blueprint(config, manifest)
    mixture = build_model(config, blueprint).mixture.double().train()
    std, seed = config.model.embedding.init_std, config.train.seed
    tables = {
        (feature.name, index): initial_block(seed, f"{feature.name}/{index}", 0, feature.cardinality, dim, std).double().requires_grad_()
        for feature in blueprint.features
        for index, dim in enumerate(blueprint.set_dims)
    }
    states: dict[Any, dict[str, Tensor]] = {key: {} for key in tables}
    losses = []
    for number, batch in enumerate(batches_of(config, steps, 0, 1), 1):
        sets = [
            torch.stack([pooled(batch, f, tables[f.name, index]) for f in blueprint.features], 1)
            for index in range(len(blueprint.set_dims))
        ]
        outputs = mixture(batch.dense_BD.double(), sets)
        bce = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logit_B, batch.label_B.double())
        form = {"norm": config.correlation.norm}
        loss = bce + config.correlation.alpha * correlation_of(outputs.hidden_BMD, batch.label_B, form)
        loss.backward()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for parameter in mixture.parameters():
                assert parameter.grad is not None
                parameter.sub_(config.optimizer.dense.lr * parameter.grad)
                parameter.grad = None
            for key, weight in tables.items():
                assert weight.grad is not None
                step_table(config, weight, weight.grad, states[key], number)
                weight.grad = None
    whole = {f"{feature}/{index}": weight.detach().numpy() for (feature, index), weight in tables.items()}
    return losses, whole, {name: value.detach().numpy() for name, value in mixture.state_dict().items()}


def batches_of(config: Config, steps: int, rank: int, ranks: int) -> Any:
    """The first training batches of a rank."""
    from dmoe.data.dataset.reading.reader import Reader

    manifest = load_manifest(config.data.path)
    blueprint = make_blueprint(config, manifest)
    data = config.data
    reader = Reader(
        data.path,
        manifest,
        data.train_split,
        blueprint.features,
        blueprint.dense,
        data.shuffle,
        data.window_row_groups,
        config.train.seed,
        prefetch=0,
    )
    return reader.batches(config.train.batch_size, rank, ranks, max_steps=steps)


def pooled(batch: Batch, feature: Any, table_RK: Tensor) -> Tensor:
    """The pooled embeddings (sum or mean) of a feature, [N, K]; 0 for rows without ids."""
    ids = batch.sparse[feature.name]
    row_V = torch.repeat_interleave(ids.lengths().long())
    sum_NK = torch.zeros(len(batch.label_B), table_RK.shape[1], dtype=table_RK.dtype).index_add(0, row_V, table_RK[ids.values()])
    return sum_NK / ids.lengths().clamp(min=1)[:, None] if feature.pooling == "mean" else sum_NK


def step_table(config: Config, weight: Tensor, grad: Tensor, state: dict[str, Tensor], number: int) -> None:
    """One in-place step of the table optimizer; rows without a gradient do not change."""
    settings = config.optimizer.tables
    if settings.kind == "sgd":
        weight -= settings.lr * grad
        return
    if settings.kind in ("adagrad", "rowwise_adagrad"):
        square = grad.square() if settings.kind == "adagrad" else grad.square().mean(1, keepdim=True)
        state["sum"] = state.get("sum", torch.zeros_like(square)) + square
        weight -= settings.lr * grad / (state["sum"].sqrt() + settings.eps)
        return
    touched = (grad != 0).any(1)
    for name, beta, value in (("mean", settings.betas[0], grad), ("square", settings.betas[1], grad.square())):
        moment = state.setdefault(name, torch.zeros_like(grad))
        moment[touched] = beta * moment[touched] + (1 - beta) * value[touched]
    mean, square = (state[name] / (1 - beta**number) for name, beta in zip(("mean", "square"), settings.betas, strict=True))
    weight[touched] -= settings.lr * mean[touched] / (square[touched].sqrt() + settings.eps)
