"""The log that drifts: the same bytes for a seed, tokens that come and go, and a truth that turns."""

from pathlib import Path

import numpy as np
import pyarrow.csv as csv
import pytest

from dmoe.errors import UserError
from dmoe.testing.drift import write_drift


def test_tokens_are_born_and_die_and_their_worth_turns(tmp_path: Path):
    told = write_drift(str(tmp_path / "a"), windows=9, rows=6000, tokens=100, turnover=0.5, speed=np.pi / 4)
    assert told == write_drift(str(tmp_path / "b"), windows=9, rows=6000, tokens=100, turnover=0.5, speed=np.pi / 4)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [(tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names] == [True] * 11
    windows = [csv.read_csv(tmp_path / "a" / one.file) for one in told]
    items = [set(window["item"].to_pylist()) for window in windows]
    assert not items[0] & items[4]
    assert items[0] & items[1]
    for one, window in zip(told, windows, strict=True):
        assert (one.rows, window.num_rows) == (6000, 6000)
        assert abs(one.bayes_auc - one.expected_bayes_auc) < 0.03
        assert 0.7 < one.bayes_auc < 0.95


def test_what_lives_on_turns(tmp_path: Path):
    told = write_drift(str(tmp_path), windows=5, rows=20_000, tokens=100, turnover=0.0, speed=np.pi / 4)
    first, last = (_rates(csv.read_csv(tmp_path / told[place].file), "site") for place in (0, 4))
    both = sorted(first.keys() & last.keys())
    assert len(both) > 5
    assert np.corrcoef([first[one] for one in both], [last[one] for one in both])[0, 1] < -0.5


def _rates(table, name: str) -> dict[str, float]:
    found = table.group_by(name).aggregate([("click", "mean"), ("click", "count")]).to_pylist()
    return {one[name]: one["click_mean"] for one in found if one["click_count"] > 30}


@pytest.mark.parametrize(("name", "value"), [("windows", 0), ("rows", 1), ("tokens", 5), ("turnover", 2.0), ("speed", -1.0)])
def test_arguments_out_of_range_are_named(tmp_path: Path, name: str, value: float):
    with pytest.raises(UserError, match=f"--{name} is {value}"):
        write_drift(str(tmp_path), **{"windows": 2, "rows": 100, name: value})  # type: ignore[arg-type]
