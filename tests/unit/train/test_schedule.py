"""The learning-rate factor."""

import pytest

from dmoe.config.sections import ScheduleConfig
from dmoe.train.optimizer.schedule import Schedule


def test_warm_up_then_linear_decay_to_the_minimum():
    schedule = Schedule(ScheduleConfig(warmup_steps=4, decay="linear", min_factor=0.1), total_steps=14)
    factors = [schedule.factor(step) for step in range(15)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4] == pytest.approx(1.0)
    assert factors[9] == pytest.approx(0.55)
    assert factors[14] == pytest.approx(0.1)


def test_cosine_is_half_way_in_the_middle():
    schedule = Schedule(ScheduleConfig(decay="cosine", decay_steps=10), total_steps=99)
    assert schedule.factor(5) == pytest.approx(0.5)
    assert schedule.factor(50) == pytest.approx(0.0)


def test_plateau_drops_after_its_patience_and_survives_a_checkpoint():
    config = ScheduleConfig(plateau_factor=0.1, plateau_patience=1)
    schedule = Schedule(config, total_steps=10)
    for auc in (0.7, 0.69):
        schedule.validated(auc)
    resumed = Schedule(config, total_steps=10)
    resumed.load_state(schedule.state())
    assert resumed.factor(3) == 1.0
    resumed.validated(0.70)
    assert resumed.factor(3) == pytest.approx(0.1)
    resumed.validated(0.71)
    resumed.validated(0.72)
    assert resumed.factor(3) == pytest.approx(0.1)
