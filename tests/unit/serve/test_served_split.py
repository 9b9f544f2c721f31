"""A server with a split: each unit gets its arm's scores under its version's name, and every answer is in the log."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dmoe.errors import UserError
from dmoe.serve.ab.split import Assigner, read_split
from dmoe.serve.scorer import Scorer
from dmoe.serve.server.arms import check
from dmoe.serve.server.options import ServeOptions
from dmoe.testing.small_scorer import small_scorer
from tests.unit.serve.test_server import ROWS, ask, served
from tests.waiting import wait_for

triton = pytest.importorskip("tritonclient.http")
ARMS = {"control": {"scorer": "one/scorer", "share": 0.4}, "new": {"scorer": "two/scorer", "share": 0.4}}
UNITS = [f"user-{n}" for n in range(30)]


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, np.ndarray]:
    found = {arm: Scorer(str(folder / name / "scorer")).predict(ROWS) for arm, name in (("control", "one"), ("new", "two"))}
    assert np.abs(found["control"] - found["new"]).max() > 1e-3
    return found | {"": found["control"]}


def split_file(folder: Path, tmp_path: Path, **changes: Any) -> str:
    tree = {"test": "t", "salt": "s", "unit": {"header": "X-User"}, "arms": ARMS, "control": "control"}
    tree |= {"exposures": {"folder": str(tmp_path / "exposures"), "seconds": 3600}}
    path = folder / f"{tmp_path.name}.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    return str(path)


def logged(tmp_path: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((tmp_path / "exposures").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def metric(app: Any, name: str, **labels: str) -> float:
    return app.state.server.metrics.registry.get_sample_value(name, labels) or 0.0


def test_each_unit_gets_its_arm_and_every_answer_is_logged_with_the_shadows_score(folder, tmp_path, expected):
    path = split_file(folder, tmp_path, shadow={"scorer": "two/scorer"})
    arm_of = dict(zip(UNITS, Assigner(read_split(path, "")).arms_of(UNITS), strict=True))
    assert set(arm_of.values()) == {"control", "new", ""}
    before = time.time()
    with served("", split=path) as (address, app), ThreadPoolExecutor(8) as pool:

        def score(n: int) -> tuple[str, dict[str, str], Any]:
            unit, rows = UNITS[n % 30], ROWS[n % 37 : n % 37 + 3]
            headers = {"X-User": unit, "X-Request-Id": f"request-{n}"}
            status, told, body = ask(address, "/score", json.dumps({"rows": rows}).encode(), headers)
            assert status == 200, body
            return unit, told, json.loads(body)

        answers = list(pool.map(score, range(90)))
        version_of = {}
        for n, (unit, told, tree) in enumerate(answers):
            arm = arm_of[unit]
            np.testing.assert_allclose(tree["probabilities"], expected[arm][n % 37 : n % 37 + 3], rtol=1e-4)
            assert tree["arm"] == (arm or None)
            assert told.get("x-arm", "") == arm
            assert told["x-request-id"] == tree["request_id"] == f"request-{n}"
            assert version_of.setdefault(arm, tree["version"]) == tree["version"] == told["x-model-version"]
        in_test = [n for n, (unit, _, _) in enumerate(answers) if arm_of[unit]]
        assert metric(app, "dmoe_arm_rows_total", arm="none") == 3 * (90 - len(in_test))
    rows = logged(tmp_path)
    assert {(row["request_id"], row["row"]) for row in rows} == {(f"request-{n}", k) for n in in_test for k in range(3)}
    assert len(rows) == 3 * len(in_test)
    assert metric(app, "dmoe_exposure_rows_total", state="written") == metric(app, "dmoe_shadow_rows_total", state="scored") == len(rows)
    for row in rows:
        n = int(row["request_id"].split("-")[1])
        assert row["unit"] == UNITS[n % 30]
        assert row["arm"] == arm_of[row["unit"]]
        assert row["version"] == version_of[row["arm"]]
        assert row["score"] == pytest.approx(expected[row["arm"]][n % 37 + row["row"]], rel=1e-4)
        assert row["shadow_score"] == pytest.approx(expected["new"][n % 37 + row["row"]], rel=1e-4)
        assert row["shadow_version"] == version_of["new"]
        assert before <= row["time"].timestamp() <= time.time()
    assert len(list((tmp_path / "exposures").iterdir())) == 1


def test_a_unit_of_a_column_a_field_or_a_tensor(folder, tmp_path, expected):
    table = pa.Table.from_pylist(ROWS[:2]).append_column("who", pa.array([7, 7]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = sink.getvalue().to_pybytes(), {"content-type": "application/vnd.apache.arrow.stream"}
    path = split_file(folder, tmp_path, unit={"column": "who"})
    (arm,) = Assigner(read_split(path, "")).arms_of(["7"])
    assert arm
    with served("", split=path) as (address, _):
        for unit in (7, "7"):
            body = json.dumps([row | {"who": unit} for row in ROWS[:2]]).encode()
            assert json.loads(ask(address, "/score", body)[2])["arm"] == arm
        assert ask(address, "/score", *arrow)[1]["x-arm"] == arm
        client = triton.InferenceServerClient(address)
        columns = {"site": "s1", "user": "u1", "tags": "t1", "who": "7"}
        inputs = [triton.InferInput("price", [1], "FP64"), *(triton.InferInput(name, [1], "BYTES") for name in columns)]
        for one, value in zip(inputs, [2.5, *columns.values()], strict=True):
            one.set_data_from_numpy(np.array([value], object if isinstance(value, str) else float))
        answer = client.infer("dmoe", inputs, request_id="seventeen").get_response()
        assert answer["parameters"] == {"arm": arm, "request_id": "seventeen"}
        two = json.dumps([ROWS[0] | {"who": 7}, ROWS[1] | {"who": 8}]).encode()
        for body in (two, json.dumps(ROWS[:1]).encode(), json.dumps([{"who": 1.5}]).encode(), json.dumps([{"who": [1]}]).encode()):
            status, _, text = ask(address, "/score", body)
            assert status == 422
            assert "column 'who'" in json.loads(text)["error"]
    assert {(row["unit"], row["arm"]) for row in logged(tmp_path)} == {("7", arm)}
    with served("", split=split_file(folder, tmp_path, unit={"field": "visitor"})) as (address, _):
        assert json.loads(ask(address, "/score", json.dumps({"rows": ROWS[:1], "visitor": 7}).encode())[2])["arm"] == arm


def test_a_missing_unit_may_be_answered_by_the_control_outside_of_the_test(folder, tmp_path, expected):
    path = split_file(folder, tmp_path, missing_unit="control")
    with served("", split=path) as (address, _):
        tree = json.loads(ask(address, "/score", json.dumps(ROWS).encode())[2])
        assert tree["arm"] is None
        np.testing.assert_allclose(tree["probabilities"], expected["control"], rtol=1e-4)
    assert logged(tmp_path) == []


def test_a_shadow_that_is_behind_or_fails_changes_no_answer(folder, tmp_path, expected):
    path = split_file(folder, tmp_path, shadow={"scorer": "two/scorer", "queue_rows": 3})
    units = [unit for unit, arm in zip(UNITS, Assigner(read_split(path, "")).arms_of(UNITS), strict=True) if arm]
    with served("", split=path, batch_us=100_000) as (address, app), ThreadPoolExecutor(20) as pool:
        body = json.dumps(ROWS[:2]).encode()
        assert {ask(address, "/score", body, {"X-User": unit})[0] for unit in units} == {200}
        found = list(pool.map(lambda unit: ask(address, "/score", body, {"X-User": unit})[0], units))
        assert set(found) == {200}
        # Until the shadow has nothing to do: it would drop the next request, not fail at it.
        shadowed = ("scored", "dropped")
        wait_for(lambda: sum(metric(app, "dmoe_shadow_rows_total", state=state) for state in shadowed) == 4 * len(units))
        versions = app.state.server.arms.shadow.versions
        # A scorer that has no encoder.
        versions.current = replace(versions.current, scorer=SimpleNamespace(folder=versions.current.folder))
        assert ask(address, "/score", body, {"X-User": units[0]})[0] == 200
    rows = logged(tmp_path)
    assert len(rows) == 2 * (2 * len(units) + 1)
    states = {state: metric(app, "dmoe_shadow_rows_total", state=state) for state in ("scored", "dropped", "failed")}
    assert states["dropped"] > 0
    assert states["failed"] == 2
    assert sum(states.values()) == len(rows)
    assert states["scored"] == sum(row["shadow_score"] is not None for row in rows) > 0


def test_a_log_that_cannot_be_written_fails_no_request(folder, tmp_path, expected):
    path = split_file(folder, tmp_path)
    (unit,) = [unit for unit, arm in zip(UNITS, Assigner(read_split(path, "")).arms_of(UNITS), strict=True) if arm][:1]
    with served("", split=path) as (address, app):
        (tmp_path / "exposures").rmdir()
        assert ask(address, "/score", json.dumps(ROWS[:2]).encode(), {"X-User": unit})[0] == 200
    assert metric(app, "dmoe_exposure_rows_total", state="lost") == 2


def test_a_model_that_is_not_there_is_named_with_its_arm(folder, tmp_path):
    path = split_file(folder, tmp_path, arms=ARMS | {"new": {"scorer": "three", "share": 0.1}})
    with pytest.raises(UserError, match=r"arms\.new\.scorer .*three"):
        check(ServeOptions("", split=path))
    with pytest.raises(UserError, match=r"arms\.new\.scorer .*three"), served("", split=path):
        pass


def test_arms_are_reloaded_under_load_and_no_answer_mixes_versions(folder, tmp_path, expected):
    """Both arms follow a pointer file; the control's changes from one scorer to the other and back, the other one's is damaged once."""
    of_name = {"one": expected["control"], "two": expected["new"]}
    pointers = {"control": tmp_path / "control", "new": tmp_path / "new"}
    for arm, name in (("control", "one"), ("new", "two")):
        pointers[arm].write_text(f"{folder}/{name}/scorer\n")
    arms = {arm: {"scorer": str(path), "share": 0.4} for arm, path in pointers.items()}
    # Of four times as many rows that wait, none is lost, however long a write takes.
    path = split_file(folder, tmp_path, arms=arms, exposures={"folder": str(tmp_path / "exposures"), "rows": 500, "seconds": 3600})
    arm_of = dict(zip(UNITS, Assigner(read_split(path, "")).arms_of(UNITS), strict=True))
    body = json.dumps({"rows": ROWS[:5]}).encode()
    with served("", split=path, follow_seconds=0.05) as (address, app), ThreadPoolExecutor(4) as pool:
        stop, version_of, answered = threading.Event(), {}, []

        def load(start: int) -> list[tuple[str, str, str, list[float]]]:
            found = []
            while not stop.is_set():
                unit = UNITS[(start + len(found)) % 30]
                status, _, text = ask(address, "/score", body, {"X-User": unit})
                tree = json.loads(text)
                assert status == 200, tree
                found.append((unit, tree["version"], tree["request_id"], tree["probabilities"]))
                answered.append((arm_of[unit], tree["version"]))
            return found

        loads = [pool.submit(load, 7 * n) for n in range(3)]
        models = app.state.server.arms.of_arm
        version_of[models["new"].versions.current.name] = "two"
        control = models["control"].versions
        for name in ("one", "two", "one", "two"):
            pointers["control"].write_text(f"{folder}/{name}/scorer\n")
            wait_for(lambda name=name: control.current.folder == f"{folder}/{name}/scorer")
            version_of[control.current.name] = name
            pointers["new"].write_text("gone\n")
            before = len(answered)
            wait_for(lambda before=before: len(answered) > before + 100 and ("control", control.current.name) in answered[before:])
        stop.set()
        answers = [answer for one in loads for answer in one.result()]
    assert set(version_of.values()) == {"one", "two"}
    by_request = {}
    for unit, version, request, scores in answers:
        np.testing.assert_allclose(scores, of_name[version_of[version]][:5], rtol=1e-4)
        if arm_of[unit] == "new":
            assert version_of[version] == "two", "a version that cannot be loaded does not take over"
        by_request[request] = (unit, version)
    assert {version_of[version] for unit, version, _, _ in answers if arm_of[unit] == "control"} == {"one", "two"}
    rows = logged(tmp_path)
    assert len(rows) == 5 * sum(bool(arm_of[unit]) for unit, _, _, _ in answers)
    for row in rows:
        assert by_request[row["request_id"]] == (row["unit"], row["version"])
        assert row["score"] == pytest.approx(of_name[version_of[row["version"]]][row["row"]], rel=1e-4)
    assert len(list((tmp_path / "exposures").iterdir())) > 1


def test_ids_are_refused_where_the_arms_are_of_different_data(tmp_path_factory, tmp_path):
    """The scorers have one value a row, so that ids are taken at all."""
    place = tmp_path_factory.mktemp("ids")
    small_scorer(str(place / "one"), tags=False)
    for name, other in (("same", False), ("other", True)):
        shutil.copytree(place / "one" / "scorer", place / name / "scorer")
        if other:
            about = json.loads((place / name / "scorer" / "scorer.json").read_text())
            (place / name / "scorer" / "scorer.json").write_text(json.dumps(about | {"schema_hash": "0" * 16}))
    tensors = [{"name": "ids", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}]
    tensors += [{"name": "dense", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}]
    for name, status in (("same", 200), ("other", 400)):
        arms = {"control": {"scorer": "one/scorer", "share": 0.5}, "new": {"scorer": f"{name}/scorer", "share": 0.5}}
        with served("", split=split_file(place, tmp_path, arms=arms)) as (address, _):
            found = ask(address, "/v2/models/dmoe/infer", json.dumps({"inputs": tensors}).encode(), {"X-User": "u1"})
            assert found[0] == status, found
            if status == 400:
                assert "ids" in json.loads(found[2])["error"]
