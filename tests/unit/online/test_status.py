"""The page of a run: curves of the windows that were learned, a line where there was an alarm, and each window's version."""

from dmoe.online.status import status_document, summary


def window(number: int, state: str = "trained", auc: float = 0.7, **more) -> dict:
    test = {"auc": auc, "ne": 0.9, "logloss": 0.5, "calibration": 1.0, "cec": 0.1, "gate_mass": [0.5, 0.5]}
    files = [{"name": f"logs/w{number}.csv"}]
    return {"window": number, "state": state, "rows": 400, "test": test, "data": {"ids": {"born": 1, "evicted": 0}}, "files": files, **more}


def test_an_alarm_is_a_line_in_every_curve_and_presses_no_point_into_a_corner():
    bad = window(3, "quarantined", auc=0.2, alarms=["ne: 2.1, and was <0.9>"])
    versions = [
        {"version": f"{number:06d}", "kind": kind, "bytes": size, "full_bytes": 200}
        for number, kind, size in ((1, "full", 200), (2, "delta", 10))
    ]
    found = {"run": "R", "windows": [window(1, auc=0.4), window(2), bad, window(4, notes=["few rows: 4"])], "versions": versions}
    view = status_document(found)
    text, html = view.text(), view.html()
    rows = [line.split() for line in text.splitlines()[2:6]]
    assert [(row[0], row[1], row[3]) for row in rows][2] == ("3", "quarantined", "0.2000")
    assert ["full 100%" in text.splitlines()[2], "delta 5%" in text.splitlines()[3]] == [True, True]
    assert html.count("<svg") == html.count(">alarm<") == html.count(">note or event<") == 6
    assert not any(f">0.{digit}" in html.partition("</svg>")[0] for digit in "234")
    assert "&lt;0.9&gt;" in html


def test_after_a_rollback_the_version_is_that_of_the_last_window_that_counts():
    versions = [{"version": f"{number:06d}", "kind": "full", "bytes": 200, "full_bytes": 200} for number in (1, 2, 3)]
    back = {"window": 4, "state": "rolled back", "undoes": [2, 3], "rows": 0}
    found = {"run": "R", "windows": [window(1), window(2), window(3), back], "versions": versions}
    assert summary(found).startswith("4 windows: 1 trained, 2 undone, 1 rolled back; version 000001 ")
    assert [line.split()[1] for line in status_document(found).text().splitlines()[2:5]] == ["trained", "undone", "undone"]
