"""The torchrec_dlrm recipe: DLRM_DCN in DLRMTrain, Adagrad in the backward pass, default planner, TrainPipelineSparseDist.

Its DCN is low rank; a rank of half the width has as many weights as the full one. It has no gate and no layer norm (561 weights of 800
thousand), and DCNv2's projection is a layer of its over arch. The recipe has no mixture: the D-MoE is built with the plain blocks on one
collection of a table a feature and set, sharded and stepped in the recipe's way.
"""

from typing import Any

import torch
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
from torchrec.distributed import DistributedModelParallel, TrainPipelineSparseDist
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.sharding_plan import get_default_sharders
from torchrec.models.dlrm import DLRM_DCN, DLRMTrain
from torchrec.optim import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.sparse.jagged_tensor import KeyedTensor

from dmoe.data.dataset.batch import Batch
from tools.bench.builders import Built
from tools.bench.builders.mixture import Loss, parameters_of
from tools.bench.builders.plain import Model as Plain
from tools.bench.case import DENSE_FEATURES, EXPERT_DIM, LEARNING_RATE, MODELS, Case, forever, make_batches


class RecipeBatch(Batch):
    """dmoe's batch with the names that DLRMTrain reads."""

    @property
    def dense_features(self) -> torch.Tensor:
        return self.dense_BD

    @property
    def sparse_features(self) -> Any:
        return self.sparse

    @property
    def labels(self) -> torch.Tensor:
        return self.label_B

    def to(self, device: torch.device, non_blocking: bool = False) -> "RecipeBatch":
        return RecipeBatch(*vars(super().to(device, non_blocking)).values())


class Sets(nn.Module):
    def __init__(self, keys: list[list[str]], dim: int) -> None:
        super().__init__()
        self.keys, self.dim = keys, dim

    def forward(self, looked_up: KeyedTensor) -> list[torch.Tensor]:
        return [x.unflatten(1, (-1, self.dim)) for x in KeyedTensor.regroup([looked_up], self.keys)]


class MixtureTrain(nn.Module):
    def __init__(self, ebc: nn.Module, case: Case) -> None:
        super().__init__()
        one = case.sets == 1
        names = [[f"C{f + 1}" if one else f"C{f + 1}@C{f + 1}_{s}" for f in range(case.features)] for s in range(case.sets)]
        self.ebc, self.split, self.loss = ebc, Sets(names, case.dim), Loss()
        self.mixture = Plain(Case(**vars(case) | {"rows": 1})).mixture

    def forward(self, batch):  # type: ignore[no-untyped-def]  # an annotation would be traced
        logit, hidden = self.mixture(batch.dense_features, self.split(self.ebc(batch.sparse_features)))
        loss = self.loss(logit, hidden, batch.labels)
        return loss, (loss.detach(), logit.detach(), batch.labels)


def build(case: Case, rank: int) -> Built:
    device = torch.device("cpu")
    tables = [
        EmbeddingBagConfig(name=f"C{f + 1}_{s}", embedding_dim=case.dim, num_embeddings=case.rows, feature_names=[f"C{f + 1}"])
        for f in range(case.features)
        for s in range(case.sets)
    ]
    ebc = EmbeddingBagCollection(tables=tables, device=torch.device("meta"))
    model: nn.Module = MixtureTrain(ebc, case)
    if case.model == "dcnv2":
        width = (case.features + 1) * case.dim
        over = [EXPERT_DIM, *MODELS["dcnv2"]["tower"]["hidden"], 1]
        model = DLRMTrain(DLRM_DCN(ebc, DENSE_FEATURES, [64, case.dim], over, dcn_num_layers=3, dcn_low_rank_dim=width // 2))
    table_parameters = parameters_of(ebc)
    dense_parameters = parameters_of(model) - table_parameters
    apply_optimizer_in_backward(torch.optim.Adagrad, ebc.parameters(), {"lr": LEARNING_RATE})
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=case.ranks, local_world_size=case.ranks, compute_device="cpu"), batch_size=case.batch // case.ranks
    )
    plan = planner.collective_plan(model, get_default_sharders(), torch.distributed.group.WORLD)
    sharded = DistributedModelParallel(model, device=device, plan=plan)
    stepped = dict(in_backward_optimizer_filter(sharded.named_parameters()))
    dense = KeyedOptimizerWrapper(stepped, lambda parameters: torch.optim.Adagrad(parameters, lr=1e-2))
    pipeline: Any = TrainPipelineSparseDist(sharded, CombinedOptimizer([sharded.fused_optimizer, dense]), device)
    batches = (RecipeBatch(*vars(batch).values()) for batch in forever(make_batches(case, rank)))
    sharded.train()
    return Built(lambda: pipeline.progress(batches), table_parameters, dense_parameters)
