"""What is named as the likely reason of a loss that overflowed, or of a run that learns nothing."""

from types import SimpleNamespace

import pytest
import torch

from dmoe.checkpoint.progress import Progress
from dmoe.config.config import parse_config
from dmoe.data.dataset.batch import Batch
from dmoe.train.guard import Guard, Stopped
from dmoe.train.overflow import likely_reason

ROWS, SIZE = 100, 8


class Rows:
    """A split whose row r has the number r in its second dense column; `large` maps rows to other numbers, `weights` to weights."""

    def __init__(self, large=None, weights=None):
        self.dense, self.weight = torch.arange(ROWS, dtype=torch.float32), torch.ones(ROWS)
        for values, column in ((large, self.dense), (weights, self.weight)):
            for row, value in (values or {}).items():
                column[row] = value
        self.read = set()

    def steps(self, size):
        return -(-ROWS // size)

    def batches(self, size, rank, ranks, epoch, start, steps):
        assert (rank, ranks) == (0, 1)
        for first in range(start, min(start + steps * size, ROWS), size):
            rows = slice(first, min(first + size, ROWS))
            self.read |= {(epoch, row) for row in range(first, rows.stop)}
            dense = torch.stack([torch.zeros_like(self.dense[rows]), self.dense[rows]], 1)
            yield Batch(dense, None, torch.zeros(len(dense)), self.weight[rows])


def session_of(reader, *overrides):
    return SimpleNamespace(
        config=parse_config("{}", "test", [f"train.batch_size={SIZE}", *overrides]),
        blueprint=SimpleNamespace(dense=("I1", "I2")),
        manifest=SimpleNamespace(weight="w"),
        reader=lambda split, shuffled: reader,
    )


def at(step, epoch=0):
    """Where a run stands after so many steps of an epoch."""
    return Progress(step=step + epoch * 13, epoch=epoch, row=min(step * SIZE, ROWS))


@pytest.mark.parametrize("value", [3e38, -1e12])
def test_a_number_of_the_data_is_named_with_its_feature(value):
    reason = likely_reason(session_of(Rows(large={17: value})), at(5), 0, 5)
    assert reason.startswith(f"dense feature I2 reaches {abs(value):.3g}")


def test_a_row_s_weight_is_named_with_its_column():
    assert "(column w)" in likely_reason(session_of(Rows(weights={39: 1e30})), at(5), 3, 5)


@pytest.mark.parametrize("key", ["correlation.alpha", "optimizer.embedding_l2", "optimizer.dense.weight_decay", "optimizer.tables.lr"])
def test_a_setting_that_is_far_too_large_is_named(key):
    reader = Rows(large={0: 3e38})
    assert likely_reason(session_of(reader, f"{key}=1e38"), at(5), 0, 5).startswith(f"{key}=1e+38")
    assert not reader.read


def test_neither_is_named_where_neither_is_large():
    assert likely_reason(session_of(Rows(large={99: 1e6})), at(13), 0, 13) == ""


def test_only_the_rows_of_the_steps_in_question_are_read():
    for progress, since, last, rows in (
        (at(5), 3, 5, range(24, 40)),
        (at(5), 2, 4, range(16, 32)),
        (at(13), 12, 13, range(96, 100)),
        (at(5, epoch=2), 2 * 13 + 4, 2 * 13 + 5, range(32, 40)),
        # Steps of the epoch before are not looked at.
        (at(2, epoch=1), 5, 15, range(16)),
        (at(3), 3, 3, range(0)),
    ):
        reader = Rows()
        likely_reason(session_of(reader), progress, since, last)
        assert sorted(row for _, row in reader.read) == list(rows)
        assert {epoch for epoch, _ in reader.read} <= {progress.epoch}
    # A validation at the end of an epoch has moved on to the next one.
    reader = Rows()
    likely_reason(session_of(reader), Progress(step=26, epoch=2, row=0), 24, 26)
    assert reader.read == {(1, row) for row in range(88, 100)}


def test_the_guard_says_the_reason_in_place_of_the_learning_rates():
    config = parse_config("train: {guard: {after_steps: 1}}", "test").train.guard
    for judge in (
        lambda guard, reason: guard.check_loss(20, float("nan"), 10, (17, 3), reason),
        lambda guard, reason: guard.check_loss(20, 5.0, 10, None, reason),
        lambda guard, reason: guard.check_auc(20, 0.5, reason),
    ):
        with pytest.raises(Stopped) as told:
            judge(Guard(config, 0.2), lambda: "dense feature I2 reaches 3e+38")
        assert "dense feature I2 reaches 3e+38" in str(told.value)
        assert "learning rate" not in str(told.value)
        assert ".lr" not in str(told.value)
        with pytest.raises(Stopped, match=r"learning rate|\.lr"):
            judge(Guard(config, 0.2), str)
