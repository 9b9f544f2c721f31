"""The metrics as torchmetrics' users use them: collections, reset, copies, devices."""

import pytest
import torch
from torchmetrics import Metric, MetricCollection

from dmoe.metrics import BinnedAUC, CrossExpertCorrelation, ExactAUC, GroupedAUC

ROWS = 200


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(3)
    label_B = (torch.rand(ROWS, generator=generator) < 0.3).float()
    return torch.randn(ROWS, generator=generator) + label_B, label_B


def test_a_collection_gives_what_each_metric_gives(rows):
    both = MetricCollection({"binned": BinnedAUC(1 << 18), "exact": ExactAUC()})
    alone = ExactAUC()
    for part in torch.arange(ROWS).split(70):
        both.update(rows[0][part], rows[1][part])
        alone.update(rows[0][part], rows[1][part])
    found = both.compute()
    assert found["exact"] == alone.compute()
    assert float(found["binned"]) == pytest.approx(float(alone.compute()), abs=1e-3)


def make(kind: str) -> tuple[Metric, tuple[torch.Tensor, ...]]:
    label_B = torch.tensor([0.0, 1.0, 1.0, 0.0])
    logit_B = torch.tensor([0.1, 0.2, 0.3, 0.4])
    hidden_BMD = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0], [4.0, -1.0]]).unsqueeze(2)
    return {
        "binned": (BinnedAUC(), (logit_B, label_B)),
        "exact": (ExactAUC(), (logit_B, label_B)),
        "grouped": (GroupedAUC(), (logit_B, label_B, torch.ones(4), torch.tensor([1, 1, 2, 2]))),
        "cec": (CrossExpertCorrelation(2, 1), (hidden_BMD, label_B)),
    }[kind]


@pytest.mark.parametrize("kind", ["binned", "exact", "grouped", "cec"])
def test_reset_forgets_and_a_clone_is_apart(kind):
    metric, batch = make(kind)
    metric.update(*batch)
    expected = str(metric.compute())
    other = metric.clone()
    other.reset()
    assert str(metric.compute()) == expected
    other.update(*batch)
    assert str(other.compute()) == expected


def test_state_moves_to_a_device_and_stays_float64():
    metric, batch = make("cec")
    metric.to("cpu").update(*batch)
    assert metric.moments_2L.dtype == torch.float64
    metric.half()
    assert metric.moments_2L.dtype == torch.float64
