"""(c) DeepCTR-Torch: its embedding matrix, CrossNet (matrix), CIN and DNN, with Adam, as its README compiles a model.

Its L2 of 1e-5 on whole tables, which its models have by default, is left out, in its favour.
"""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from tools.bench.builders import Built
from tools.bench.builders.mixture import Mixture, trained
from tools.bench.case import DENSE_FEATURES, EXPERT_DIM, MODELS, Case, ids_of, make_batches


class Model(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        from deepctr_torch import layers  # type: ignore[import-not-found]
        from deepctr_torch.inputs import SparseFeat, create_embedding_matrix  # type: ignore[import-not-found]
        from deepctr_torch.layers.interaction import CIN, CrossNet  # type: ignore[import-not-found]

        columns = [SparseFeat(f"C{i + 1}", vocabulary_size=case.rows, embedding_dim=case.dim) for i in range(case.features)]
        self.names = [column.name for column in columns]
        self.tables: Any = nn.ModuleList(create_embedding_matrix(columns, 1e-4, sparse=False) for _ in range(case.sets))
        fields = case.features + 1
        width = fields * case.dim
        made: dict[str, Callable[[], tuple[nn.Module, int]]] = {
            "crossnet": lambda: (nn.Sequential(nn.Flatten(), CrossNet(width, 3, parameterization="matrix")), width),
            "cin": lambda: (CIN(fields, (16, 16), activation="linear", split_half=False), 32),
            "mlp": lambda: (nn.Sequential(nn.Flatten(), layers.DNN(width, (400, 400))), 400),
        }
        experts = [made[one if isinstance(one, str) else one["kind"]]() for one in case.expert_specs()]
        dense = [nn.Sequential(layers.DNN(DENSE_FEATURES, (64,)), nn.Linear(64, case.dim)) for _ in experts]
        hidden = tuple(MODELS[case.model]["tower"]["hidden"])
        tower = nn.Sequential(layers.DNN(EXPERT_DIM, hidden), nn.Linear(hidden[-1], 1))
        self.mixture = Mixture([e for e, _ in experts], [w for _, w in experts], fields, case.dim, EXPERT_DIM, dense, tower)

    def forward(self, dense_BI: Tensor, x_BF: Tensor) -> tuple[Tensor, Tensor]:
        # Its models take ids as floats, one column a feature, and turn each into a whole number in every step.
        sets = [torch.cat([table[n](x_BF[:, i : i + 1].long()) for i, n in enumerate(self.names)], 1) for table in self.tables]
        return self.mixture(dense_BI, sets)


def build(case: Case, rank: int) -> Built:
    model = Model(case)
    batches = cycle(((b.dense_BD, ids_of(b, case.features).float()), b.label_B) for b in make_batches(case, rank))
    return trained(model, [torch.optim.Adam(model.parameters())], batches)
