"""Alarms that are judged from figures of windows alone."""

from typing import Any

import pytest

from dmoe.config.online_settings import WatchConfig
from dmoe.data.dataset.identity import CrossPart, TokenIdentity
from dmoe.data.dataset.manifest import CategoricalFeature, Manifest
from dmoe.online.watch import judge, made_of_time


def line(number: int, weekday_unknown: float) -> dict[str, Any]:
    test = {"ne": 0.9, "calibration": 1.0, "cec": 0.1, "gate_mass": [0.5, 0.5]}
    names = ("site", "weekday")
    data = {"unknown": {"site": 0.0, "weekday": weekday_unknown}, "missing": dict.fromkeys(names, 0.0), "top": dict.fromkeys(names, 0.3)}
    return {"window": number, "rows": 1000, "positives": 300, "test": test, "data": {**data, "means": {}}}


@pytest.mark.parametrize(("of_time", "kinds"), [((), ["unknown values of weekday"]), (("weekday",), [])])
def test_a_new_weekday_is_no_alarm(of_time, kinds):
    good = [line(number, 0.0) for number in range(1, 9)]
    assert [alarm.partition(":")[0] for alarm in judge(line(9, 1.0), good, WatchConfig(), of_time)] == kinds


def test_parts_of_the_time_and_their_crosses_are_known():
    cross = TokenIdentity(source="cross", cross=(CrossPart(name="site", source="text"), CrossPart(name="day", source="hour")))
    identities = {"site": TokenIdentity(source="text"), "day": TokenIdentity(source="weekday"), "both": cross}
    shares = {"kind": "token", "cardinality": 9, "missing_share": 0.0, "rare_share": 0.0}
    features = tuple(CategoricalFeature(name=name, identity=one, **shares) for name, one in identities.items())
    assert made_of_time(Manifest(dataset="log", dense=(), categorical=features, splits={})) == {"day", "both"}
