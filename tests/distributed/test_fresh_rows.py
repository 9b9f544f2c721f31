"""A row that is given to another token is a fresh model's in weights and optimizer state, and no other number changes, on every plan."""

import numpy as np
import pytest

from dmoe.config.sections import ShardingTypeName
from dmoe.testing.plans import overrides
from tests.distributed import fresh_rows

ROWS = {"C1": [0, 2, 19, 20, 39], "C3": [24], "C4": list(range(10, 50))}
"""C2 keeps all of its rows."""
TYPES = ShardingTypeName.__args__
CUTS = ("column_wise", "table_column_wise", "grid_shard")
WAYS = [
    (kind, optimizer, layout)
    for kind in TYPES
    for optimizer in ("adagrad", "rowwise_adagrad", "sgd")
    for layout in ("wide", "separate")
    if optimizer != "rowwise_adagrad" or (layout == "separate" and kind not in CUTS)
]
FEW = [("row_wise", "adagrad", "wide"), ("data_parallel", "rowwise_adagrad", "separate"), ("column_wise", "sgd", "separate")]


@pytest.mark.parametrize(
    ("kind", "optimizer", "layout"), [pytest.param(*way, marks=[] if way in FEW else pytest.mark.slow) for way in WAYS]
)
def test_new_rows_are_a_fresh_models_and_others_stay(ranks, data_set, kind, optimizer, layout):
    size = 4 if kind in ("table_row_wise", "table_column_wise", "grid_shard") else 2
    given = [*overrides(kind, layout), f"optimizer.tables.kind={optimizer}"]
    fresh, trained, renewed, loss = ranks(size).run(fresh_rows.before_and_after, data_set, ROWS, *given)[0]
    assert np.isfinite(loss)
    assert fresh.keys() - trained.keys() == set()
    tables = [name for name in renewed if name.startswith("C")]
    assert any(":" in name for name in tables) == (optimizer != "sgd")
    changed = 0
    for name in tables:
        new = ROWS.get(name.partition("/")[0], [])
        kept = np.setdiff1d(np.arange(len(renewed[name])), new)
        np.testing.assert_array_equal(renewed[name][kept], trained[name][kept], err_msg=name)
        np.testing.assert_array_equal(renewed[name][new], fresh[name][new], err_msg=name)
        changed += int((renewed[name] != trained[name]).sum())
    assert changed > 100
    for name in renewed.keys() - set(tables):
        np.testing.assert_array_equal(renewed[name], trained[name], err_msg=name)
