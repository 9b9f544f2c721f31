"""Which exposure a click is of, and which rows are counted."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dmoe.errors import UserError
from dmoe.report.ab.load import load_clicks, parse_time, parse_window
from tests.ab_traffic import FIRST_DAY
from tests.unit.report.ab_rows import clicks_of, joined_of

DAY = 86_400
SECONDS = some.integers(0, 400)
UNITS = some.sampled_from(["u1", "u2", "u3", "u4"])


@settings(max_examples=150, deadline=None)
@given(some.lists(some.tuples(UNITS, SECONDS), min_size=1, max_size=12), some.lists(some.tuples(UNITS, SECONDS), max_size=12))
def test_a_click_is_of_the_last_exposure_of_its_unit_before_it(shown, clicked):
    rows = [(unit, "ab"[int(unit[1]) % 2], f"r{n}", 0, float(at)) for n, (unit, at) in enumerate(shown)]
    found = joined_of(rows, clicks_of(clicked, "unit", "time"), window=100, until=10**12)
    by_time = sorted(rows, key=lambda row: row[4])
    expected, unmatched, late, repeated = set(), 0, 0, 0
    for unit, at in clicked:
        before = [n for n, row in enumerate(by_time) if row[0] == unit and row[4] <= at]
        if not before:
            unmatched += 1
        elif at - by_time[before[-1]][4] > 100:
            late += 1
        else:
            # Exposures of the same moment: which of them is meant, nobody can say; one is taken.
            same = {n for n in before if by_time[n][4] == by_time[before[-1]][4]}
            repeated += bool(same & expected)
            expected |= {max(same)}
    assert found.clicked_N.sum() == len(expected)
    assert sorted(found.time_N[found.clicked_N]) == sorted(round(1e6 * by_time[n][4]) for n in expected)
    assert (found.counts["unmatched clicks"], found.counts["late clicks"], found.counts["repeated clicks"]) == (unmatched, late, repeated)


def test_clicks_of_requests_and_rows_and_what_is_counted():
    rows = [("u1", "a", "r1", row, 10.0) for row in range(3)] + [("u2", "b", "r2", 0, 20.0), ("u2", "b", "r2", 0, 30.0)]
    clicks: list[tuple[Any, ...]] = [
        ("r1", 1, 15),
        ("r1", 1, 16),
        ("r2", 0, 500),
        ("r1", 2, 5),
        ("r1", 7, 15),
        ("r9", 0, 15),
        (None, 0, 15),
    ]
    found = joined_of(rows, clicks_of(clicks, "request_id", "row", "time"), until=10**12)
    assert found.clicked_N.tolist() == [False, True, False, False]
    counts = {name: count for name, count in found.counts.items() if count}
    assert counts == {
        "exposures": 5,
        "repeated exposures": 1,
        "clicks": 7,
        "unmatched clicks": 3,
        "late clicks": 1,
        "clicks before their exposure": 1,
        "repeated clicks": 1,
        "rows": 4,
        "clicked rows": 1,
    }


def test_rows_whose_window_is_open_and_rows_outside_of_the_time_are_left_out():
    rows = [(f"u{n}", "ab"[n % 2], f"r{n}", 0, 100.0 * n) for n in range(10)]
    clicks = clicks_of([("r1", 110.0), ("r8", 810.0)], "request_id", "time")
    found = joined_of(rows, clicks, window=100)
    # Outcomes are known up to the last click, at 810 s.
    assert found.time_N.max() == 700e6
    assert found.counts["exposures with an open window"] == 2
    found = joined_of(rows, clicks, window=100, since=round(150e6), until=round(900e6))
    assert (found.time_N.min(), found.time_N.max()) == (200e6, 800e6)
    assert found.counts["exposures outside of the time"] == 2
    assert found.clicked_N.tolist() == [False] * 6 + [True]
    with pytest.raises(UserError, match="--window"):
        joined_of(rows, clicks, window=10_000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2026-12-01T00:00:05Z", 5.0), ("2026-12-01 02:00:05+02:00", 5.0), ("2026-12-01T00:00:05.25", 5.25), ("1796083205", 5.0)],
)
def test_times_of_clicks(tmp_path, text, seconds):
    (tmp_path / "c.csv").write_text(f"request_id,time\n017,{text}\n")
    table = load_clicks([str(tmp_path / "c.csv")])
    assert table["request_id"].to_pylist() == ["017"]
    assert table["time"][0].value == round((FIRST_DAY * DAY + seconds) * 1e6)
    assert parse_time("2026-12-01", "") == FIRST_DAY * DAY * 10**6
    assert parse_window("1.5h") == 5400


def test_several_rows_of_a_request_need_a_row(tmp_path):
    rows = [("u1", "a", "r1", row, 10.0) for row in range(3)]
    for clicks in (clicks_of([("r1",)], "request_id"), clicks_of([("u1", 11)], "unit", "time")):
        with pytest.raises(UserError, match="row"):
            joined_of(rows, clicks)


def test_one_period_is_read_although_units_and_arms_of_another_differ():
    rows = [("u1", "a", "r0", 0, 0.0), ("u3", "c", "r1", 0, 1.0), ("u1", "b", "r2", 0, 1000.0), ("u2", "a", "r3", 0, 1001.0)]
    clicks = clicks_of([("r2", 0, 1002.0), ("r3", 0, 1300.0)], "request_id", "row", "time")
    later = joined_of(rows, clicks, since=1_000_000_000)
    assert (later.arm_N.tolist(), later.clicked_N.tolist(), later.arm_U[later.unit_N].tolist()) == ([1, 0], [True, False], [1, 0])
    other = [("u1", "a", "r0", 0, 0.0), ("u2", "b", "r1", 0, 1.0), ("u1", "b", "r2", 0, 1000.0), ("u3", "c", "r3", 0, 1001.0)]
    earlier = joined_of(other, clicks_of([("r1", 0, 2.0)], "request_id", "row", "time"), until=500_000_000)
    assert (earlier.arm_N.tolist(), earlier.clicked_N.tolist()) == ([0, 1], [False, True])
