"""Trains a few steps of a small model on this rank, and collects its whole weights, for invariance tests."""

from typing import Any

import numpy as np
import torch.distributed as dist
import yaml

from dmoe import distributed
from dmoe.config.config import Config, parse_config
from dmoe.data.dataset.manifest import load_manifest
from dmoe.sharding.plan.local_shards import local_shards
from dmoe.train.session import Session, open_session
from dmoe.train.teacher import Teachers

# The model is smooth (SiLU, squared correlations). At a kink of |r| or ReLU, rounding errors decide the side, so runs with different orders
# of additions would diverge under a correct plan. eps is large for the same reason: with a small eps, the first step of Adagrad and Adam is
# the sign of the gradient, which is noise if the gradient is only rounding errors.
BASE = {
    "model": {
        "embedding": {"dim": 8},
        "experts": ["crossnet", {"kind": "mlp", "hidden": [16], "activation": "silu"}, {"kind": "cin", "layer_maps": [4]}],
        "expert_dim": 8,
        "tower": {"hidden": [8]},
    },
    "correlation": {"alpha": 0.5, "norm": "l2"},
    "optimizer": {"tables": {"eps": 1e-3}, "dense": {"eps": 1e-4}},
    "train": {"batch_size": 64},
    "data": {"prefetch": 0},
}


def small_config(data: str, *overrides: str) -> Config:
    return parse_config(yaml.safe_dump(BASE), "test", [f"data.path={data}", *overrides])


def open_small(config: Config) -> Session:
    return open_session(config, load_manifest(config.data.path), distributed.device_of_this_rank())


def train_steps(session: Session, steps: int, start_row: int = 0) -> list[float]:
    """Trains `steps` steps from row `start_row` of the first epoch on; returns the global losses."""
    batch_size = session.config.train.batch_size
    distils = session.config.distill.on
    batches = session.reader("train", shuffled=True, plain=distils).batches(
        batch_size, distributed.rank(), distributed.world_size(), start_row=start_row, max_steps=steps
    )
    if distils:
        first = start_row // batch_size
        batches = Teachers(session, session.config.train.max_steps or steps).taught(batches, first)
    session.sharded.train()
    losses = []
    for _ in range(steps):
        session.optimizers.set_factor(session.optimizers.factor)
        parts, *_ = session.pipeline.progress(batches)
        bce = distributed.all_reduce_sum(parts.bce.double() + parts.auxiliary.double()) / distributed.world_size()
        losses.append(float(bce + session.config.correlation.alpha * parts.correlation))
    return losses


def whole_tables(session: Session, states: bool = False) -> dict[str, np.ndarray]:
    """The weights of all logical tables, such as `C1/0`, and with `states` the optimizer states, such as `C1/0:sum`; on every rank."""
    mine: list[tuple[str, int, int, np.ndarray]] = []
    for shard in local_shards(session.sharded, session.tables):
        if shard.replicated and distributed.rank() != 0:
            continue
        tensors = {"": shard.weight, **(session.optimizers.states_of(shard) if states else {})}
        for section, column, columns in shard.pieces():
            for state, tensor in tensors.items():
                name = shard.table.logical_name(section) + (f":{state}" if state else "")
                view = tensor[:, columns] if tensor.dim() == 2 else tensor
                mine.append((name, shard.row, column if tensor.dim() == 2 else -1, view.detach().cpu().numpy().copy()))
    parts: list[Any] = [None] * distributed.world_size()
    dist.all_gather_object(parts, mine)
    whole: dict[str, np.ndarray] = {}
    for table in session.tables:
        for section in table.sections:
            whole[table.logical_name(section)] = np.full((table.rows, section.dim), np.nan, np.float32)
    for name, row, column, values in (piece for part in parts for piece in part):
        if name not in whole:
            weight = whole[name.rpartition(":")[0]]
            whole[name] = np.full_like(weight if column >= 0 else weight[:, 0], np.nan)
        rows = slice(row, row + len(values))
        if column >= 0:
            whole[name][rows, column : column + values.shape[1]] = values
        else:
            whole[name][rows] = values
    return whole


def dense_weights(session: Session) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in session.dense.state_dict().items()}


def train_and_tell(data: str, steps: int, *overrides: str) -> tuple[list[float], dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Losses, whole tables, dense weights and sharding types of a short run."""
    session = open_small(small_config(data, *overrides))
    losses = train_steps(session, steps)
    types = sorted({row["sharding_type"] for row in session.plan["tables"].values()})
    return losses, whole_tables(session), dense_weights(session), types


def loss_difference(a: list[float], b: list[float]) -> float:
    """The largest difference of a loss from that of `b`, relative to it; infinite if a loss is NaN."""
    found = [abs(one - other) / abs(other) for one, other in zip(a, b, strict=True)]
    return max(one if one == one else float("inf") for one in found)


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest difference over all tensors, relative to the largest number of each tensor; infinite if a value is NaN."""
    assert a.keys() == b.keys()
    worst = 0.0
    for name in a:
        difference = np.abs(a[name] - b[name]).max() / max(np.abs(a[name]).max(), 1e-12)
        worst = max(worst, float("inf") if np.isnan(difference) else float(difference))
    return worst
