"""CEC merged over ranks, of which one may have no row, against numpy.corrcoef over the concatenation.

Shapes: N rows of all ranks, M experts, D dims.
"""

import numpy as np
import pytest
import torch

from dmoe import distributed
from dmoe.metrics.cec import CrossExpertCorrelation
from tests.unit.train.test_cec import EXPERTS, WIDTH, by_corrcoef

ROWS = 700


def sample(seed: int, world_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The outputs, the labels, and the rank of each row; with more than one rank the last has none."""
    rng = np.random.default_rng(seed)
    x_NMD = rng.normal(size=(ROWS, EXPERTS, WIDTH)) * 10.0 ** rng.uniform(-3, 3, (EXPERTS, WIDTH))
    x_NMD[:, 2] += 0.7 * x_NMD[:, 0]
    x_NMD += rng.uniform(-1e3, 1e3) * x_NMD.std(0)
    share = rng.dirichlet(np.ones(max(world_size - 1, 1)))
    return x_NMD, (rng.random(ROWS) < 0.3).astype(np.float64), rng.choice(len(share), ROWS, p=share)


def on_ranks(seed: int) -> tuple[float, list[list[float]], list[float], int]:
    x_NMD, label_N, rank_N = sample(seed, distributed.world_size())
    mine = np.flatnonzero(rank_N == distributed.rank())
    cec = CrossExpertCorrelation(EXPERTS, WIDTH)
    for part in np.array_split(mine, 1 + seed % 3):
        cec.update(*(torch.from_numpy(x) for x in (x_NMD[part], label_N[part], np.ones(len(part)))))
    report = cec.compute()
    return report.cec, report.matrix, report.by_class, report.rows


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_equals_corrcoef_over_uneven_ranks(ranks, world_size, seed):
    x_NMD, label_N, _ = sample(seed, world_size)
    pairs = np.triu_indices(EXPERTS, 1)
    expected = by_corrcoef(x_NMD)
    for cec, matrix, by_class, rows in ranks(world_size).run(on_ranks, seed):
        assert rows == ROWS
        np.testing.assert_allclose(matrix, expected, atol=1e-10, rtol=0)
        assert cec == pytest.approx(expected[pairs].mean(), abs=1e-10)
        for label, within in enumerate(by_class):
            assert within == pytest.approx(by_corrcoef(x_NMD[label_N == label])[pairs].mean(), abs=1e-10)
