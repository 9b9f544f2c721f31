"""What a reshard moves is counted number by number on small tables; what else two plans differ in is said."""

import numpy as np
import pytest

from dmoe.sharding.plan.migration import moved
from dmoe.sharding.plan.report.diff import as_data, diff_document, difference
from dmoe.sharding.planner.cost.cost_model import shards_of
from tests.unit.sharding.small_plans import plan_of, table

ROWS, COLUMNS, RANKS = 12, 16, 4
WHOLE = {
    "table_wise": table(ROWS, COLUMNS, "table_wise", (0, 0, ROWS, COLUMNS, 2)),
    "table_wise elsewhere": table(ROWS, COLUMNS, "table_wise", (0, 0, ROWS, COLUMNS, 0)),
    "column_wise": table(ROWS, COLUMNS, "column_wise", (0, 0, ROWS, 4, 2), (0, 4, ROWS, 8, 1), (0, 12, ROWS, 4, 2)),
    "row_wise": table(ROWS, COLUMNS, "row_wise", *((row, 0, 3, COLUMNS, row // 3) for row in range(0, ROWS, 3))),
    "row_wise with an empty shard": table(
        ROWS, COLUMNS, "row_wise", (0, 0, 5, 16, 0), (5, 0, 5, 16, 1), (10, 0, 2, 16, 2), (12, 0, 0, 16, 3)
    ),
    "grid_shard": table(ROWS, COLUMNS, "grid_shard", (0, 0, 6, 8, 0), (6, 0, 6, 8, 1), (0, 8, 6, 8, 2), (6, 8, 6, 8, 3)),
    "data_parallel": table(ROWS, COLUMNS, "data_parallel"),
}


def cells(row, ranks):
    """Which numbers each rank holds, one by one: [ranks, rows, columns]."""
    held = np.zeros((ranks, ROWS, COLUMNS), bool)
    for shard in shards_of(row, ranks):
        held[shard["rank"], shard["row"] : shard["row"] + shard["rows"], shard["column"] : shard["column"] + shard["columns"]] = True
    return held


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("before", WHOLE)
@pytest.mark.parametrize("after", WHOLE)
def test_moved_bytes_equal_a_count_of_single_numbers(before, after, optimizer):
    found = moved(WHOLE[before], WHOLE[after], (RANKS, RANKS), (optimizer, optimizer))
    missing = (cells(WHOLE[after], RANKS) & ~cells(WHOLE[before], RANKS)).sum((1, 2))
    numbers = {"sgd": 1, "adagrad": 2, "adam": 3}[optimizer]
    assert found.received.tolist() == (missing * 4 * numbers).tolist()
    assert found.weights == missing.sum() * 4
    if before == after:
        assert found.bytes == 0


@pytest.mark.parametrize("before", ["table_wise", "row_wise", "row_wise with an empty shard", "data_parallel"])
@pytest.mark.parametrize("after", ["table_wise elsewhere", "row_wise", "data_parallel"])
def test_row_wise_adagrad_moves_one_state_a_row(before, after):
    found = moved(WHOLE[before], WHOLE[after], (RANKS, RANKS), ("rowwise_adagrad", "rowwise_adagrad"))
    missing = (cells(WHOLE[after], RANKS) & ~cells(WHOLE[before], RANKS)).any(2).sum()
    assert found.state == missing * 4
    assert found.weights == missing * 4 * COLUMNS


def test_ranks_that_are_new_receive_all_that_they_hold():
    narrow = table(ROWS, COLUMNS, "row_wise", (0, 0, 6, 16, 0), (6, 0, 6, 16, 1))
    found = moved(narrow, WHOLE["row_wise"], (2, 4), ("adagrad", "adagrad"))
    # Rank 0 keeps rows 0-2 of its 0-5; rank 1 had 6-11 and needs 3-5; 2 and 3 were not there.
    assert found.received.tolist() == [0, 3 * 16 * 8, 3 * 16 * 8, 3 * 16 * 8]
    assert moved(WHOLE["data_parallel"], WHOLE["data_parallel"], (2, 4), ("sgd", "sgd")).received.tolist() == [0, 0, 768, 768]


def test_what_changed_is_named_and_the_worst_rank_compared():
    a = plan_of({"T": WHOLE["table_wise"], "R": WHOLE["row_wise"], "C": WHOLE["column_wise"], "S": WHOLE["table_wise"]}, "2x2:cpu")
    recut = table(ROWS, COLUMNS, "column_wise", (0, 0, ROWS, 8, 2), (0, 8, ROWS, 8, 1))
    b = plan_of({"T": WHOLE["table_wise elsewhere"], "R": WHOLE["grid_shard"], "C": recut, "S": WHOLE["table_wise"]}, "2x2:cpu")
    found = difference(a, b, "a", "b")
    assert {change.name: change.what for change in found.changed} == {"T": "moved", "R": "resharded", "C": "recut"}
    assert found.moved == sum(change.moved for change in found.changed) > 0
    assert not found.same
    told = diff_document(found, "a.json", "b.json").text()
    assert f"{found.b.time_ms - found.a.time_ms:+.3f} ms" in told
    assert as_data(found)["b"]["critical_rank"] == found.b.critical
    assert difference(a, a, "a", "a").same
    assert "no table lies otherwise" in diff_document(difference(a, a, "a", "a"), "a", "a").text()


def test_plans_of_other_models_and_clusters_are_said_to_be_so():
    a = plan_of({"T": WHOLE["table_wise"], "old": WHOLE["table_wise"], "grown": table(10, 16, "table_wise", (0, 0, 10, 16, 0))}, "1x4:cpu")
    b = plan_of(
        {"T": WHOLE["table_wise"], "new": WHOLE["table_wise"], "grown": table(20, 16, "table_wise", (0, 0, 20, 16, 0))},
        "2x2:h100",
        optimizer="adam",
        batch_size=256,
    )
    found = difference(a, b, "a", "b")
    assert (found.only_a, found.only_b, found.resized) == (("old",), ("new",), ("grown",))
    assert [note.split()[0] for note in found.notes] == ["clusters", "optimizers", "global"]
    # Nothing of the state of another optimizer is counted.
    assert found.moved == 0
    told = diff_document(found, "a" * 200, "b" * 200).text().splitlines()
    assert max(len(line) for line in told) <= 100
