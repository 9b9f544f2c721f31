"""Settings that have no meaning over windows are refused, each by the key to change."""

import pytest

from dmoe.config.config import parse_config
from dmoe.errors import UserError
from dmoe.online.checks import check, schema_of


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("model.embedding.sets", ["model.embedding.sets=light"]),
        ("optimizer.schedule.decay", ["optimizer.schedule.decay=linear"]),
        ("train.epochs", ["train.max_steps=9"]),
        ("train.checkpoint.keep", ["train.checkpoint.keep=1"]),
        ("online.rate_power", ["online.rate_power=0.5", "online.ids.hash_size=1000"]),
        ("distill.teachers", ["distill.teachers=[runs/a]"]),
        ("online.state_decay", ["online.state_decay=0.9", "optimizer.tables.kind=sgd"]),
    ],
)
def test_a_setting_without_meaning_is_named(key, settings):
    check(parse_config("{}", "test", []), "runs/live")
    with pytest.raises(UserError, match=rf"^{key}"):
        check(parse_config("{}", "test", settings), "runs/live")


def test_a_remote_run_and_a_missing_schema_are_named():
    with pytest.raises(UserError, match=r"^--run s3://bucket/run"):
        check(parse_config("{}", "test", []), "s3://bucket/run")
    with pytest.raises(UserError, match=r"^online\.schema_file"):
        schema_of(parse_config("{}", "test", []))
