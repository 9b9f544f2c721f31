"""A scorer's multi-valued features: sums and means of rows, for every kind of rows."""

import json

import numpy as np
import pytest

from dmoe.data.dataset.reading.bags import Bags
from dmoe.errors import UserError
from dmoe.serve.scorer import Scorer
from tests.unit.serve.test_scorer import batch, by_hand, make


def with_pooling(folder, pooling: str) -> Scorer:
    """The scorer in `folder`, its second feature multi-valued."""
    about = json.loads((folder / "scorer.json").read_text())
    about["features"][1]["pooling"] = about["reads"]["categorical"][1]["pooling"] = pooling
    (folder / "scorer.json").write_text(json.dumps(about))
    return Scorer(str(folder))


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize(("rows", "bound"), [("fp32", 1e-5), ("fp16", 1e-2), ("int8", 1e-1)])
def test_a_bag_scores_as_one_row_that_is_its_pool(tmp_path, rows, bound, pooling):
    mixture, table_RC = make(tmp_path, rows)
    scorer = with_pooling(tmp_path, pooling)
    dense_BI, ids_BF = batch()
    lists = [[0], [1, 2], [3, 3, 4], [2], [4, 0], [1], [0, 1, 2, 3], [2, 2], [3]]
    bags = Bags(np.concatenate(lists).astype(np.int32), np.cumsum([0, *map(len, lists)]))
    # The pools as rows of their own, behind the table's.
    pools = np.stack([getattr(table_RC[7 + np.array(one)], pooling)(0) for one in lists])
    extended = np.concatenate([table_RC, pools])
    expected = by_hand(mixture, extended, dense_BI, np.stack([ids_BF[:, 0], 5 + np.arange(9)], 1))
    np.testing.assert_allclose(scorer.logits(dense_BI, ids_BF, {"C1": bags}), expected, atol=bound)


def test_a_missing_bag_and_an_id_out_of_range_are_named(tmp_path):
    make(tmp_path)
    scorer = with_pooling(tmp_path, "sum")
    dense_BI, ids_BF = batch(3)
    with pytest.raises(UserError, match=r"^C1: "):
        scorer.logits(dense_BI, ids_BF)
    bags = Bags(np.array([0, 1, 5, 2], np.int32), np.array([0, 1, 3, 4]))
    with pytest.raises(UserError, match=r"C1: id 5 at row 1, .* 5 ids"):
        scorer.logits(dense_BI, ids_BF, {"C1": bags})
