"""`dmoe.Dataset`: the rows of a split, each once an epoch, from any position on."""

import numpy as np
import pyarrow.parquet as pq
import pytest

import dmoe
from dmoe.testing.small_data import small_data_set


@pytest.fixture(scope="module")
def data():
    return dmoe.Dataset(small_data_set())


def rows_of(batches) -> list[tuple]:
    return [
        tuple(column[row].item() for column in (batch.label_B, *batch.dense_BD.T, *batch.sparse.values().view(4, -1)))
        for batch in batches
        for row in range(len(batch.label_B))
        if batch.weight_B[row] > 0
    ]


def test_an_epoch_has_each_row_of_the_files_once(data):
    table = pq.read_table(f"{data.path}/train")
    names = ["label", "I1", "I2", "I3", "C1", "C2", "C3", "C4"]
    expected = sorted(zip(*(np.asarray(table[name], np.float64) for name in names), strict=True))
    drawn = sorted(rows_of(data.batches("train", 170, shuffle="window", seed=5)))
    np.testing.assert_allclose(drawn, expected)
    assert data.splits["train"].rows == len(expected)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_position_continues_on_another_number_of_ranks(data, ranks):
    whole = data.batches("train", 100, shuffle="window")
    first = iter(whole)
    for _ in range(7):
        next(first)
    kept = whole.state_dict()
    expected = rows_of(first)
    parts = []
    for rank in range(ranks):
        resumed = data.batches("train", 100, shuffle="window", ranks=(rank, ranks))
        resumed.load_state_dict(kept)
        assert len(resumed) == 23
        parts += rows_of(resumed)
    assert sorted(parts) == sorted(expected)
    assert whole.state_dict() == {"epoch": 1, "row": 0, "order": kept["order"]}


def test_a_position_of_another_order_is_refused(data):
    kept = data.batches("train", 100, shuffle="window", seed=1).state_dict()
    with pytest.raises(dmoe.UserError, match="shuffle or seed"):
        data.batches("train", 100, shuffle="window", seed=2).load_state_dict(kept)


def test_features_in_the_order_that_is_asked_for(data):
    batch = next(iter(data.batches("test", 10, features=["C3", "C1"], dense=["I2"])))
    assert batch.sparse.keys() == ["C3", "C1"]
    assert batch.dense_BD.shape == (10, 1)
    with pytest.raises(dmoe.UserError, match="C9"):
        data.batches("test", 10, features=["C9"])
