"""CEC against numpy.corrcoef over the concatenation, and against the ways to cheat it.

Shapes: N rows, M experts, D dims.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmoe.metrics.cec import CrossExpertCorrelation, Moments, correlation_matrix

EXPERTS, WIDTH = 3, 4


def sample(rows: int = 503, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x_NMD = rng.normal(size=(rows, EXPERTS, WIDTH)) * 0.01 + 20
    x_NMD[:, 1] += x_NMD[:, 0] * 0.5
    return x_NMD, rng.random(rows) < 0.3


def stream(x_NMD: np.ndarray, labels: np.ndarray, cuts: list[int]) -> CrossExpertCorrelation:
    cec = CrossExpertCorrelation(EXPERTS, WIDTH)
    for part in np.split(np.arange(len(x_NMD)), cuts):
        cec.update(torch.from_numpy(x_NMD[part]), torch.from_numpy(labels[part]).float(), torch.ones(len(part)))
    return cec


def by_corrcoef(x_NMD: np.ndarray) -> np.ndarray:
    r = np.abs(np.corrcoef(x_NMD.reshape(len(x_NMD), -1), rowvar=False))
    return r.reshape(EXPERTS, WIDTH, EXPERTS, WIDTH).mean((1, 3))


@pytest.mark.parametrize("cuts", [[], [1], [100, 101, 400], [0, 502]])
def test_equals_corrcoef_over_any_split_of_rows(cuts):
    x_NMD, labels = sample()
    report = stream(x_NMD, labels, cuts).compute()
    expected = by_corrcoef(x_NMD)
    np.testing.assert_allclose(report.matrix, expected, atol=1e-10)
    assert report.cec == pytest.approx(expected[np.triu_indices(EXPERTS, 1)].mean(), abs=1e-10)
    for label, within in zip((False, True), report.by_class, strict=True):
        assert within == pytest.approx(by_corrcoef(x_NMD[labels == label])[np.triu_indices(EXPERTS, 1)].mean(), abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(3, 400), offset=st.sampled_from([0.0, 20.0, -1e4]), data=st.data())
def test_equals_corrcoef_over_random_splits_of_rows_and_ranks(seed, rows, offset, data):
    rng = np.random.default_rng(seed)
    x_NMD = rng.normal(size=(rows, EXPERTS, WIDTH)) * 10.0 ** rng.uniform(-3, 3, (EXPERTS, WIDTH))
    x_NMD[:, 1] += x_NMD[:, 0]
    x_NMD += offset * x_NMD.std(0)
    rank_N = rng.integers(0, data.draw(st.integers(1, 5), "ranks"), rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=6), "cuts"))
    of_rank = []
    for rank in range(rank_N.max() + 1):
        moments = Moments(EXPERTS * WIDTH)
        for part in np.split(np.arange(rows), cuts):
            moments.update(torch.from_numpy(x_NMD[part][rank_N[part] == rank]).flatten(1))
        of_rank.append(moments)
    whole = Moments(EXPERTS * WIDTH)
    for place in rng.permutation(len(of_rank)):
        whole.merge(of_rank[place])
    r_PP = np.corrcoef(x_NMD.reshape(rows, -1), rowvar=False)
    np.testing.assert_allclose(correlation_matrix(whole)[0], r_PP, atol=1e-10, rtol=0)


def test_padding_does_not_count():
    x_NMD, labels = sample(50)
    cec = CrossExpertCorrelation(EXPERTS, WIDTH)
    mask = torch.ones(50)
    mask[40:] = 0
    cec.update(torch.from_numpy(x_NMD), torch.from_numpy(labels).float(), mask)
    np.testing.assert_allclose(cec.compute().matrix, by_corrcoef(x_NMD[:40]), atol=1e-10)


def test_merging_moments_equals_one_pass():
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(90, 6)) + 1e6)
    whole, left, right = Moments(6), Moments(6), Moments(6)
    whole.update(x)
    left.update(x[:7])
    right.update(x[7:])
    left.merge(right)
    np.testing.assert_allclose(correlation_matrix(left)[0], np.corrcoef(x.numpy(), rowvar=False), atol=1e-9)
    np.testing.assert_allclose(correlation_matrix(whole)[0], correlation_matrix(left)[0], atol=1e-9)


def test_shrinking_the_outputs_does_not_lower_cec():
    x_NMD, labels = sample()
    shrunk = (x_NMD - x_NMD.mean(0)) * 1e-6
    assert stream(shrunk, labels, []).compute().cec == pytest.approx(stream(x_NMD, labels, []).compute().cec, rel=1e-6)


def test_a_dead_expert_shows():
    x_NMD, labels = sample()
    x_NMD[:, 2] = 7.0
    report = stream(x_NMD, labels, []).compute()
    assert report.dead == [0, 0, WIDTH]
    assert report.variance[2] == 0.0
    assert np.isfinite(report.matrix).all()


def test_a_rotated_copy_shows_in_cka_and_hides_from_cec():
    x_NMD, labels = sample(4000)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(WIDTH, WIDTH)))[0]
    x_NMD[:, 1] = (x_NMD[:, 0] - x_NMD[:, 0].mean(0)) @ rotation
    report = stream(x_NMD, labels, []).compute()
    assert report.cka[0][1] == pytest.approx(1.0, abs=1e-9)
    assert report.cka[0][2] < 0.01


def test_independent_experts_show_the_floor():
    rng = np.random.default_rng(3)
    x_NMD = rng.normal(size=(2000, EXPERTS, WIDTH))
    report = stream(x_NMD, rng.random(2000) < 0.5, []).compute()
    assert report.cec == pytest.approx(report.floor, rel=0.2)
