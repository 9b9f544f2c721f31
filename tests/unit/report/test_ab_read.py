"""`dmoe ab read`, from the files of exposures and clicks to its verdict: against plain loops over the same rows."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmoe.cli.main import main
from dmoe.metrics.auc import exact_auc
from dmoe.report.ab.load import load_clicks, load_exposures
from dmoe.serve.ab.exposures import SPLIT_KEY, Exposure, ExposureLog
from tests.ab_traffic import write_traffic


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("planted")
    write_traffic(place, units=1500, days=6, rate=0.2, lift=0.08, shadow=True)
    (place / "same").mkdir()
    write_traffic(place / "same", units=1500, days=4, seed=1)
    (place / "lost").mkdir()
    write_traffic(place / "lost", units=4000, days=2, lift=0.08, lost=0.2, seed=2)
    return place


def read(place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["ab", "read", "--exposures", f"{place}/exposures", "--clicks", f"{place}/clicks.csv", "--json", *words]) == 0
    tree: dict[str, Any] = json.loads(capsys.readouterr().out)
    return tree


def test_figures_are_those_of_plain_loops(planted, capsys):
    tree = read(planted, capsys, "--until", "2027-01-01")
    (path,) = (planted / "exposures").iterdir()
    rows = pq.read_table(path).to_pylist()
    with open(planted / "clicks.csv") as file:
        clicked = {row["request_id"] for row in csv.DictReader(file)}
    for arm in tree["arms"]:
        mine = [row for row in rows if row["arm"] == arm["arm"]]
        label = np.array([row["request_id"] in clicked for row in mine])
        score = np.array([row["score"] for row in mine])
        assert (arm["rows"], arm["clicks"], arm["units"]) == (len(mine), label.sum(), len({row["unit"] for row in mine}))
        assert arm["click_rate"] == pytest.approx(label.mean())
        assert arm["loss"] == pytest.approx(-np.log(np.where(label, score, 1 - score)).mean(), rel=1e-5)
        assert arm["auc"] == pytest.approx(exact_auc(score, label))
        assert arm["calibration"] == pytest.approx(label.sum() / score.sum(), rel=1e-5)
        residual: dict[str, float] = {}
        for row, one in zip(mine, label, strict=True):
            residual[row["unit"]] = residual.get(row["unit"], 0) + one - label.mean()
        assert arm["click_rate_error"] == pytest.approx(sum(x * x for x in residual.values()) ** 0.5 / len(mine), rel=1e-3)
        assert arm["versions"] == [f"1-{arm['arm']}"]
    one = tree["comparisons"][0]
    assert one["metric"] == tree["primary"] == "clicks"
    control, new = tree["arms"]
    assert one["absolute"] == pytest.approx(new["click_rate"] - control["click_rate"])
    assert one["relative"] == pytest.approx(new["click_rate"] / control["click_rate"] - 1)
    assert one["error"] == pytest.approx(np.hypot(new["click_rate_error"], control["click_rate_error"]))
    assert one["error"] > one["naive_error"]
    assert one["low"] < 0.08 < one["high"]
    assert one["high"] - one["low"] > 2 * 1.96 * one["error"]
    assert [look["day"] for look in one["looks"]] == [f"2026-12-0{day}" for day in range(1, 7)]
    assert (one["looks"][-1]["low"], one["looks"][-1]["high"]) == (one["low"], one["high"])
    rows_shadow, auc, *_ = tree["shadow"]
    assert rows_shadow == len(rows)
    assert auc == pytest.approx(
        exact_auc(np.array([row["shadow_score"] for row in rows]), np.array([row["request_id"] in clicked for row in rows]))
    )


def test_a_win_a_loss_and_no_difference(planted, capsys):
    assert [one["kind"] for one in read(planted, capsys)["verdicts"]] == ["win"]
    assert [one["kind"] for one in read(planted / "same", capsys)["verdicts"]] == ["open"]
    assert "more day" in read(planted / "same", capsys)["verdicts"][0]["says"]
    mismatch = read(planted / "lost", capsys)
    assert [one["kind"] for one in mismatch["verdicts"]] == ["broken"]
    assert mismatch["mismatch_p"] < 0.001
    assert mismatch["chi_squared_p"] < 0.001
    assert read(planted, capsys)["mismatch_p"] > 0.05


def test_with_a_plan_a_large_difference_is_ruled_out(planted, capsys, tmp_path):
    plan = ["ab", "plan", "--baseline", "0.2", "--effect", "0.15", "--traffic", "900", "--output", str(tmp_path / "plan.json")]
    assert main(plan) == 0
    tree = read(planted / "same", capsys, "--plan", str(tmp_path / "plan.json"))
    assert tree["verdicts"][0]["kind"] == "none"
    one = tree["comparisons"][0]
    assert one["planned"]
    assert one["target"] == 0.15
    assert max(-one["low"], one["high"]) <= 0.15


def test_a_novelty_is_told_and_each_day_alone_is_its_rows(tmp_path, capsys):
    write_traffic(tmp_path, units=3000, days=6, rate=0.2, lift=0.2, fades=True)
    tree = read(tmp_path, capsys, "--until", "2027-01-01")
    one = tree["comparisons"][0]
    change, low, high = one["novelty"]
    # The lift falls from .2 on the first day to 0 on the last: 0.16 in the first half in the mean, .04 in the second.
    assert low < -0.12 < high < 0
    assert change == pytest.approx(-0.12, abs=0.04)
    (path,) = (tmp_path / "exposures").iterdir()
    clicked = set(load_clicks([f"{tmp_path}/clicks.csv"])["request_id"].to_pylist())
    for at, day in enumerate(one["days"]):
        rates = []
        for arm in ("control", "new"):
            mine = [row for row in pq.read_table(path).to_pylist() if row["arm"] == arm and row["time"].day == at + 1]
            rates.append(np.mean([row["request_id"] in clicked for row in mine]))
        assert day["absolute"] == pytest.approx(rates[1] - rates[0])
    assert main(["ab", "read", "--exposures", f"{tmp_path}/exposures", "--clicks", f"{tmp_path}/clicks.csv"]) == 0
    assert "NOVELTY" in capsys.readouterr().out


def test_days_read_alone_are_the_looks_of_the_whole(planted, capsys):
    """What was told on a day stays true of it: later data do not change it."""
    whole = read(planted, capsys)["comparisons"][0]
    early = read(planted, capsys, "--until", "2026-12-04T01:00")["comparisons"][0]
    assert early["looks"][:3] == whole["looks"][:3]


def test_text_in_100_columns_and_a_page_of_its_own(planted, capsys, tmp_path):
    words = ["--exposures", f"{planted}/exposures", "--clicks", f"{planted}/clicks.csv", "--output", f"{tmp_path}/page.html"]
    assert main(["ab", "read", *words]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("page: "))
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 3
    assert "Win: new" in page
    assert not re.search(r"(src|href)=.https?:", page)


def log_of(folder: Path, rows: list[tuple[str, str, float]], about: dict[str, Any]) -> None:
    log = ExposureLog(str(folder), 10_000, 1000, about)
    for n, (unit, arm, seconds) in enumerate(rows):
        log.add(Exposure(unit, arm, "v", np.array([0.5], np.float32), f"{folder.name}-{seconds}-{n}", seconds))
    log.close()


ABOUT = {"test": "t", "salt": "s", "control": "a", "arms": {"a": 0.1, "b": 0.1}}
FAIR = [("u1", "a", 1.0), ("u2", "b", 2.0)]


def wrong_unit(place: Path) -> None:
    log_of(place / "exposures", [*FAIR, ("u1", "b", 3.0)], ABOUT)


def two_tests(place: Path) -> None:
    log_of(place / "exposures", FAIR, ABOUT)
    log_of(place / "exposures", FAIR, ABOUT | {"salt": "other"})


def other_shares(place: Path) -> None:
    log_of(place / "exposures", FAIR, ABOUT)
    log_of(place / "exposures", [("u3", "a", 90_000.0), ("u4", "b", 90_001.0)], ABOUT | {"arms": {"a": 0.3, "b": 0.1}})


def without_column(place: Path) -> None:
    log_of(place / "exposures", FAIR, ABOUT)
    (path,) = (place / "exposures").iterdir()
    pq.write_table(pq.read_table(path).drop_columns(["version"]), path)


def without_metadata(place: Path) -> None:
    log_of(place / "exposures", FAIR, ABOUT)
    (path,) = (place / "exposures").iterdir()
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)


def damaged(place: Path) -> None:
    log_of(place / "exposures", FAIR, ABOUT)
    (path,) = (place / "exposures").iterdir()
    path.write_bytes(path.read_bytes()[:100])


def one_arm(place: Path) -> None:
    log_of(place / "exposures", FAIR[:1], ABOUT)


def strange_arm(place: Path) -> None:
    log_of(place / "exposures", [*FAIR, ("u3", "c", 3.0)], ABOUT)


def empty(place: Path) -> None:
    (place / "exposures").mkdir()


REFUSED = [
    (wrong_unit, "request_id\n", "two arms", "'u1'"),
    (two_tests, "request_id\n", "salt", "other"),
    (other_shares, "request_id\n", "--since", "1970-01-02T01:00:00"),
    (without_column, "request_id\n", "version", "exposures-"),
    (without_metadata, "request_id\n", SPLIT_KEY.decode(), "exposures-"),
    (damaged, "request_id\n", "parquet", "exposures-"),
    (one_arm, "request_id\n", "arm b", ""),
    (strange_arm, "request_id\n", "'c'", ""),
    (empty, "request_id\n", "exposures", "dmoe serve"),
    (None, "click_id\n1\n", "clicks.csv", "request_id"),
    (None, "unit,time\nu1,noon\n", "clicks.csv", "time"),
    (None, "unit,time\nu1,\n", "clicks.csv", "time"),
    (None, "unit,time\nu1,1764000000123\n", "clicks.csv", "1764000000123"),
    (None, "request_id,row\nr,x\n", "clicks.csv", "row"),
    (None, "", "clicks.csv", ""),
]


@pytest.mark.parametrize(("make", "clicks", "named", "also"), REFUSED)
def test_what_cannot_be_read_is_one_line_and_exit_code_2(tmp_path, capsys, make, clicks, named, also):
    if make:
        make(tmp_path)
    else:
        log_of(tmp_path / "exposures", FAIR, ABOUT)
    (tmp_path / "clicks.csv").write_text(clicks)
    assert main(["ab", "read", "--exposures", f"{tmp_path}/exposures", "--clicks", f"{tmp_path}/clicks.csv"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("dmoe ab read: ")
    assert named in line
    assert also in line


@pytest.mark.parametrize("words", [["--window", "1 day"], ["--since", "monday"], ["--plan", "none.json"], ["--clicks", "none.csv"]])
def test_a_wrong_option_is_named(planted, capsys, words):
    assert main(["ab", "read", "--exposures", f"{planted}/exposures", "--clicks", f"{planted}/clicks.csv", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words[1] in line


def test_periods_of_other_shares_are_read_one_by_one(tmp_path):
    other_shares(tmp_path)
    _, before = load_exposures(f"{tmp_path}/exposures", until=90_000 * 10**6)
    _, after = load_exposures(f"{tmp_path}/exposures", since=90_000 * 10**6)
    assert (before.arms, after.arms) == ({"a": 0.1, "b": 0.1}, {"a": 0.3, "b": 0.1})


def test_shares_that_grow_alike_are_one_period(tmp_path):
    log_of(tmp_path / "exposures", FAIR, ABOUT)
    log_of(tmp_path / "exposures", [("u3", "a", 90_000.0)], ABOUT | {"arms": {"a": 0.3, "b": 0.3}})
    shutil.copy(next((tmp_path / "exposures").iterdir()), tmp_path / "exposures" / ".half.tmp")
    table, test = load_exposures(f"{tmp_path}/exposures")
    assert (len(table), test.arms) == (3, {"a": 0.1, "b": 0.1})
