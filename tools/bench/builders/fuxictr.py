"""FuxiCTR: its FeatureEmbedding, CrossNetV2, CompressedInteractionNet and MLP_Block, and its default optimizer, Adam over everything.

Its trainer also clips the norm of all gradients, tables included, and copies each batch: both are left out, in its favour.
"""

from collections.abc import Callable
from itertools import cycle
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tools.bench.builders import Built
from tools.bench.builders.mixture import Mixture, trained
from tools.bench.case import DENSE_FEATURES, EXPERT_DIM, MODELS, Case, make_batches


class Model(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        from fuxictr.pytorch import layers  # type: ignore[import-not-found]

        spec = {"type": "categorical", "vocab_size": case.rows, "source": ""}
        feature_map: Any = SimpleNamespace(features={f"C{i + 1}": dict(spec) for i in range(case.features)}, data_dir="")
        self.tables = nn.ModuleList(layers.FeatureEmbedding(feature_map, case.dim) for _ in range(case.sets))
        fields = case.features + 1
        width = fields * case.dim
        made: dict[str, Callable[[], tuple[nn.Module, int]]] = {
            "crossnet": lambda: (nn.Sequential(nn.Flatten(), layers.CrossNetV2(width, 3)), width),
            "cin": lambda: (layers.CompressedInteractionNet(fields, [16, 16], output_dim=EXPERT_DIM), EXPERT_DIM),
            "mlp": lambda: (nn.Sequential(nn.Flatten(), layers.MLP_Block(width, [400, 400])), 400),
        }
        experts = [made[one if isinstance(one, str) else one["kind"]]() for one in case.expert_specs()]
        dense = [layers.MLP_Block(DENSE_FEATURES, [64], output_dim=case.dim) for _ in experts]
        tower = layers.MLP_Block(EXPERT_DIM, list(MODELS[case.model]["tower"]["hidden"]), output_dim=1)
        self.mixture = Mixture([e for e, _ in experts], [w for _, w in experts], fields, case.dim, EXPERT_DIM, dense, tower)
        for (expert, _), projection in zip(experts, self.mixture.projections, strict=True):
            if isinstance(expert, layers.CompressedInteractionNet):
                # Its own last layer is the projection's: a second one would be a larger model.
                cast(nn.Sequential, projection)[0] = nn.Identity()

    def forward(self, dense_BI: Tensor, ids: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.mixture(dense_BI, [table(ids) for table in self.tables])


def build(case: Case, rank: int) -> Built:
    from fuxictr.pytorch.torch_utils import get_optimizer  # type: ignore[import-not-found]

    model = Model(case)
    optimizer = get_optimizer("adam", model.parameters(), 1e-3)
    return trained(model, [optimizer], cycle(((b.dense_BD, _columns(b.sparse)), b.label_B) for b in make_batches(case, rank)))


def _columns(ids: Any) -> dict[str, torch.Tensor]:
    return {key: ids[key].values() for key in list(ids.keys())}
