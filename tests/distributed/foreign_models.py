"""Models that are not dmoe's, planned by `dmoe.Planner` and trained on every rank; and the same ones unsharded."""

import copy
import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.types import ShardingEnv
from torchrec.models.dlrm import DLRM
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

import dmoe
from dmoe.sharding.plan.sharders import sharders
from dmoe.sharding.planner.cluster import cluster_of_this_job

STEPS, ROWS, RATE = 4, 16, 0.5
"""Rows of the global batch."""
SIZES = {"f1": 50, "f2": 50, "f3": 7, "f4": 31}


def bag(name: str, rows: int, *features: str) -> EmbeddingBagConfig:
    return EmbeddingBagConfig(name=name, num_embeddings=rows, embedding_dim=64, feature_names=list(features))


class Mixed(nn.Module):
    """Two bag collections, one of them with weights, that both call a table `t`; and a sequence, of which the mean is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = EmbeddingBagCollection([bag("t", 50, "f1", "f2"), bag("small", 7, "f3")])
        self.weighted = EmbeddingBagCollection([bag("t", 31, "f4")], is_weighted=True)
        self.sequence = EmbeddingCollection([EmbeddingConfig(name="s", num_embeddings=50, embedding_dim=32, feature_names=["f1"])])
        self.over = nn.Linear(4 * 64 + 32, 1)

    def forward(self, dense: Tensor, sparse: KeyedJaggedTensor) -> Tensor:
        plain = without_weights(sparse)
        bags, weighted = self.bags(plain).values(), self.weighted(sparse).values()
        sequence = self.sequence(plain)["f1"]
        means = torch.segment_reduce(sequence.values(), "mean", lengths=sequence.lengths(), initial=0.0)
        return self.over(torch.cat([bags, weighted, means], 1))


def without_weights(sparse: KeyedJaggedTensor) -> KeyedJaggedTensor:
    """TorchRec's sharded collections use weights that are there, its unsharded ones only where they are declared weighted."""
    return KeyedJaggedTensor(sparse.keys(), sparse.values(), lengths=sparse.lengths())


def model_of(kind: str) -> nn.Module:
    torch.manual_seed(3)
    if kind == "mixed":
        return Mixed()
    tables = EmbeddingBagCollection([bag("shared", 50, "f1", "f2"), bag("small", 7, "f3"), bag("other", 31, "f4")])
    return DLRM(tables, dense_in_features=5, dense_arch_layer_sizes=[8, 64], over_arch_layer_sizes=[8, 1])


def batch_of(kind: str, step: int, first: int, stop: int) -> tuple[Tensor, KeyedJaggedTensor, Tensor]:
    """Rows [first, stop) of the global batch of a step."""
    draw = torch.Generator().manual_seed(step)
    dense, label = torch.randn(ROWS, 5, generator=draw), torch.randint(0, 2, (ROWS,), generator=draw).float()
    values, lengths, weights = [], [], []
    for rows in SIZES.values():
        length = torch.randint(1, 4, (ROWS,), generator=draw)
        value = torch.randint(0, rows, (int(length.sum()),), generator=draw)
        weight = torch.rand(len(value), generator=draw)
        ends = torch.cat([torch.zeros(1, dtype=torch.long), length.cumsum(0)])
        span = slice(int(ends[first]), int(ends[stop]))
        values.append(value[span])
        weights.append(weight[span])
        lengths.append(length[first:stop])
    sparse = KeyedJaggedTensor(list(SIZES), torch.cat(values), torch.cat(weights), torch.cat(lengths))
    return dense[first:stop], sparse if kind == "mixed" else without_weights(sparse), label[first:stop]


def train_whole(kind: str) -> list[Tensor]:
    """The logits of every step's batch, and of one more, by the unsharded model with torch.optim.SGD."""
    model = model_of(kind)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    logits = []
    for step in range(STEPS + 1):
        dense, sparse, label = batch_of(kind, step, 0, ROWS)
        logit = model(dense, sparse).squeeze(-1)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logit, label).backward()
        optimizer.step()
        logits.append(logit.detach())
    return logits


def train_planned(
    kind: str, types: tuple[str, ...], by_torchrec: bool = False, without: tuple[int, ...] = ()
) -> tuple[list[Tensor], dict[str, str]]:
    """This rank's logits of every step, and the sharding type of every table."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    model = model_of(kind)
    whole = copy.deepcopy(model.state_dict())
    tables = [one for one in model.modules() if isinstance(one, EmbeddingBagCollection | EmbeddingCollection)]
    for table in tables:
        apply_optimizer_in_backward(torch.optim.SGD, table.parameters(), {"lr": RATE})
    asked = {"*": ParameterConstraints(sharding_types=list(types), min_partition=32, pooling_factors=[2.0])} if types else {}
    cluster = dataclasses.replace(cluster_of_this_job("cpu"), without=without)
    planner = dmoe.Planner(cluster, batch_size=ROWS, constraints=asked)
    if by_torchrec:
        topology = Topology(world_size=ranks, compute_device="cpu", local_world_size=ranks)
        plan = planner.describe(
            model, EmbeddingShardingPlanner(topology, batch_size=ROWS // ranks).collective_plan(model, sharders(), dist.group.WORLD)
        )
    else:
        plan = planner.collective_plan(model, sharders())
    used = {name: row["sharding_type"] for name, row in plan.kept["tables"].items()}
    sharded = DistributedModelParallel(model, ShardingEnv.from_process_group(dist.group.WORLD), torch.device("cpu"), plan, sharders())
    copy_weights(whole, sharded)
    dense_part = KeyedOptimizerWrapper(
        dict(in_backward_optimizer_filter(sharded.named_parameters())), lambda some: torch.optim.SGD(some, RATE)
    )
    optimizer = CombinedOptimizer([sharded.fused_optimizer, dense_part])
    share = ROWS // ranks
    logits = []
    for step in range(STEPS + 1):
        dense, sparse, label = batch_of(kind, step, rank * share, (rank + 1) * share)
        logit = sharded(dense, sparse).squeeze(-1)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logit, label).backward()
        optimizer.step()
        logits.append(logit.detach())
    return logits, used


def copy_weights(whole: dict[str, Tensor], sharded: DistributedModelParallel) -> None:
    """The whole model's tables into the shards: DistributedModelParallel draws its own."""
    for name, tensor in sharded.state_dict().items():
        if hasattr(tensor, "local_shards"):
            for shard in tensor.local_shards():
                (row, column), (rows, columns) = shard.metadata.shard_offsets, shard.metadata.shard_sizes
                shard.tensor.copy_(whole[name][row : row + rows, column : column + columns])
        else:
            tensor.copy_(whole[name])
