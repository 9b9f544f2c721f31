"""Plain PyTorch: an `nn.EmbeddingBag(sparse=True)` for every feature and set, SparseAdam on them, Adam on the rest."""

from collections.abc import Callable, Sequence
from itertools import cycle, pairwise

import torch
from torch import Tensor, nn

from tools.bench.builders import Built
from tools.bench.builders.mixture import Mixture, trained
from tools.bench.case import DENSE_FEATURES, EXPERT_DIM, MODELS, Case, ids_of, make_batches


class Cross(nn.Module):
    def __init__(self, width: int, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x_BFK: Tensor) -> Tensor:
        x0 = x = x_BFK.flatten(1)
        for layer in self.layers:
            x = x0 * layer(x) + x
        return x


class CompressedInteraction(nn.Module):
    """As the paper and every repository write it: all products of pairs, then a convolution of width 1."""

    def __init__(self, fields: int, maps: Sequence[int]) -> None:
        super().__init__()
        before = [fields, *maps[:-1]]
        self.layers = nn.ModuleList(nn.Conv1d(b * fields, m, 1, bias=False) for b, m in zip(before, maps, strict=True))

    def forward(self, x0_BFK: Tensor) -> Tensor:
        x, pooled = x0_BFK, []
        for layer in self.layers:
            x = layer(torch.einsum("bhk,bfk->bhfk", x, x0_BFK).flatten(1, 2))
            pooled.append(x.sum(2))
        return torch.cat(pooled, 1)


def mlp(widths: Sequence[int], last: int | None = None, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers, *([] if last is None else [nn.Linear(widths[-1], last)]))


class Model(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.features, self.sets = case.features, case.sets
        self.tables = nn.ModuleList(nn.EmbeddingBag(case.rows, case.dim, sparse=True, mode="sum") for _ in range(case.features * case.sets))
        fields = case.features + 1
        width = fields * case.dim
        made: dict[str, Callable[[], tuple[nn.Module, int]]] = {
            "crossnet": lambda: (Cross(width), width),
            "cin": lambda: (CompressedInteraction(fields, [16, 16]), 32),
            "mlp": lambda: (nn.Sequential(nn.Flatten(), mlp([width, 400, 400])), 400),
        }
        experts = [made[spec if isinstance(spec, str) else spec["kind"]]() for spec in case.expert_specs()]
        dense = [mlp([DENSE_FEATURES, 64], case.dim, nn.SiLU) for _ in experts]
        tower = mlp([EXPERT_DIM, *MODELS[case.model]["tower"]["hidden"]], 1, nn.SiLU)
        self.mixture = Mixture([e for e, _ in experts], [w for _, w in experts], fields, case.dim, EXPERT_DIM, dense, tower)

    def forward(self, dense_BI: Tensor, ids_BF: Tensor) -> tuple[Tensor, Tensor]:
        looked_up = [table(ids_BF[:, i % self.features, None]) for i, table in enumerate(self.tables)]
        sets = [torch.stack(looked_up[s * self.features : (s + 1) * self.features], 1) for s in range(self.sets)]
        return self.mixture(dense_BI, sets)


def build(case: Case, rank: int) -> Built:
    model = Model(case)
    sparse, dense = torch.optim.SparseAdam(list(model.tables.parameters())), torch.optim.Adam(model.mixture.parameters())
    return trained(model, [sparse, dense], cycle(((b.dense_BD, ids_of(b, case.features)), b.label_B) for b in make_batches(case, rank)))
