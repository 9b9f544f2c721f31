"""What of a config has no meaning over windows is refused before anything is built."""

import pytest

from dmoe.config import parse_config
from dmoe.errors import UserError
from dmoe.online.checks import check


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("distill.teachers=[runs/a]", "distill.teachers"),
        ("model.embedding.sets=light", "model.embedding.sets"),
        ("train.epochs=2", "train.epochs"),
    ],
)
def test_settings_that_windows_have_no_use_for_are_named(setting, key):
    with pytest.raises(UserError) as caught:
        check(parse_config("", "test", [setting]), "run")
    assert str(caught.value).startswith(key)
    check(parse_config("", "test", []), "run")
