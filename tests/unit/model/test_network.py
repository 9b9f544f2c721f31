"""Layouts, gates and the mixture, against their definitions.

Shapes: B rows, F features, K dims, M experts, D width of an expert's output.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.data.dataset.manifest import CategoricalFeature
from dmoe.model.embedding.embedding import MultiEmbedding
from dmoe.model.embedding.tables import make_tables
from dmoe.model.gate import make_gate
from dmoe.model.network import ExpertMixture
from dmoe.model.tower import Tower

FEATURES = [
    CategoricalFeature(name=name, kind="token", cardinality=size, missing_share=0.0, rare_share=0.0)
    for name, size in (("C1", 5), ("C2", 7), ("C3", 4))
]
IDS = {"C1": [0, 4], "C2": [6, 1], "C3": [3, 3]}


def lookup(layout: str, set_dims: list[int]) -> tuple[list[torch.Tensor], dict[str, np.ndarray]]:
    """What a collection gives for IDS, and its logical tables, filled with numbers that name their place."""
    tables = make_tables(FEATURES, set_dims, layout)
    model = MultiEmbedding(tables)
    logical = {}
    for table in tables:
        weight = model.ebc.embedding_bags[table.module].weight
        with torch.no_grad():
            weight.fill_(float("nan"))
            for section in table.sections:
                values = np.arange(table.rows * section.dim).reshape(table.rows, -1) + 1000 * section.set_index + ord(table.feature[1])
                logical[table.logical_name(section)] = values
                weight[:, section.offset : section.offset + section.dim] = torch.from_numpy(values).float()
    values = torch.tensor([i for ids in IDS.values() for i in ids])
    return model(KeyedJaggedTensor(keys=list(IDS), values=values, lengths=torch.ones(6, dtype=torch.int32), stride=2)), logical


@pytest.mark.parametrize("layout", ["wide", "separate"])
@pytest.mark.parametrize("set_dims", [[8], [8, 8], [10, 10], [4, 10, 3]])
def test_lookup_gives_every_set_its_own_embeddings(layout, set_dims):
    sets_BFK, logical = lookup(layout, set_dims)
    assert [x.shape for x in sets_BFK] == [(2, 3, dim) for dim in set_dims]
    for index, x_BFK in enumerate(sets_BFK):
        for field, (name, ids) in enumerate(IDS.items()):
            np.testing.assert_array_equal(x_BFK[:, field].detach().numpy(), logical[f"{name}/{index}"][ids])


def test_storage_is_a_multiple_of_four_columns():
    assert [table.columns for table in make_tables(FEATURES, [10, 3], "wide")] == [16, 16, 16]
    assert [table.columns for table in make_tables(FEATURES[:1], [10, 3], "separate")] == [12, 4]


def test_softmax_gate_is_of_each_experts_own_input():
    gate = make_gate("softmax", [3, 3], out_dim=4)
    x_BN = torch.randn(5, 3)
    y_BN = torch.randn(5, 3)
    logits = np.stack([linear(x).detach().numpy()[:, 0] for linear, x in zip(gate.logits, (x_BN, y_BN), strict=True)], 1)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(gate([x_BN, y_BN])[:, :, 0].detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("kind", "width"), [("softmax", 1), ("mean", 1), ("elementwise", 4)])
def test_gates_share_out_one(kind, width):
    gate_BMG = make_gate(kind, [3, 3, 3], out_dim=4)([torch.randn(5, 3)] * 3)
    assert gate_BMG.shape == (5, 3, width)
    torch.testing.assert_close(gate_BMG.sum(1), torch.ones(5, width))


class _Sum(nn.Module):
    out_dim = 4

    def forward(self, x_BFK: torch.Tensor) -> torch.Tensor:
        return x_BFK.sum(1)


def test_mixture_is_the_gated_sum_through_the_tower():
    torch.manual_seed(0)
    tower = Tower(4, [3], "silu", 0.0)
    mixture = ExpertMixture([_Sum(), _Sum()], [nn.Identity(), nn.Identity()], make_gate("mean", [8, 8], 4), tower, [], [0, 1]).eval()
    sets = [torch.randn(5, 2, 4), torch.randn(5, 2, 4)]
    outputs = mixture(torch.zeros(5, 0), sets)
    torch.testing.assert_close(outputs.logit_B, tower((sets[0].sum(1) + sets[1].sum(1)) / 2))
    torch.testing.assert_close(outputs.expert_logit_BM[:, 1], tower(sets[1].sum(1)))
    torch.testing.assert_close(outputs.hidden_BMD[:, 0], sets[0].sum(1))
