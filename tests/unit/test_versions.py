"""A version and a number of ranks are whole numbers: `true` and `1.0`, which Python takes for 1, are refused in every file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmoe.checkpoint.index import Index, _checksum, read_index, write_index
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError
from dmoe.json_text import is_int
from dmoe.serve.export.format import read_scorer_file
from dmoe.sharding.plan.plan_file import check_plan
from dmoe.sharding.planner.cost import calibrate
from dmoe.sharding.planner.planning_model import manifest_of
from dmoe.testing.small_data import make_data_set
from tests.unit.serve.test_scorer import make
from tests.unit.sharding.small_plans import plan_of, table

Tree = dict[str, Any]


def write_one_plan(folder: Path) -> None:
    (folder / "plan.json").write_text(json.dumps(plan_of({"T": table(10, 4, "table_wise", (0, 0, 10, 4, 0))}, "1x1:cpu")))


def write_one_index(folder: Path) -> None:
    write_index(str(folder), Index({}, (), {"dense.safetensors": (0, "0" * 64)}, {"step": 1}))


def read_plan(folder: str) -> Any:
    return check_plan(json.loads(Path(folder, "plan.json").read_text()), f"{folder}/plan.json")


FORMATS: dict[str, tuple[Callable[[Path], Any], Callable[[str], Any]]] = {
    "manifest.json": (lambda folder: make_data_set(folder, {"train": 40}), load_manifest),
    "scorer.json": (make, read_scorer_file),
    "index.json": (write_one_index, read_index),
    "plan.json": (write_one_plan, read_plan),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_version_is_a_whole_number(tmp_path: Path, name: str) -> None:
    write, read = FORMATS[name]
    write(tmp_path)
    read(str(tmp_path))
    path = tmp_path / name
    sound = json.loads(path.read_text())
    for version in (True, float(sound["version"]), str(sound["version"]), None, [1], 10**400):
        tree = sound | {"version": version}
        if "checksum" in tree:
            tree["checksum"] = _checksum(tree)
        path.write_text(json.dumps(tree))
        with pytest.raises(UserError, match=r"^[^\n]*: ([a-z]+ version |not JSON|damaged)") as caught:
            read(str(tmp_path))
        assert str(caught.value).startswith(str(path))
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan.update(world_size=True), "world_size: .*True"),
        (lambda plan: plan.update(batch_size=True), "batch_size: .*True"),
        (lambda plan: plan["cluster"].update(nodes=True), "nodes.* True"),
        (lambda plan: plan["cluster"].update(ranks_a_node=True), "ranks_a_node.* True"),
        (lambda plan: plan["tables"]["T"].update(size=[True, 4]), "tables.T.size.0: .*True"),
        (lambda plan: plan["tables"]["T"].update(batch_size=True), "tables.T.batch_size: .*True"),
        (lambda plan: plan["tables"]["T"]["shards"][0].update(rank=False), "tables.T.shards.0.rank: .*False"),
    ],
)
def test_numbers_of_a_plan_are_no_booleans(tmp_path: Path, change: Callable[[Tree], None], said: str) -> None:
    write_one_plan(tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    change(plan)
    with pytest.raises(UserError, match=said):
        check_plan(plan, "plan.json")


def test_a_measurement_and_a_file_of_cardinalities_too() -> None:
    measured = {"format": calibrate.FORMAT, "version": True}
    with pytest.raises(UserError, match=r"measured\.json: .*version"):
        calibrate.compare(measured, "measured.json")
    with pytest.raises(UserError, match=r"dense: .*True"):
        manifest_of({"C1": 10, "dense": True}, "sizes.yaml")


def test_only_a_whole_number_is_one() -> None:
    assert is_int(1, 1)
    assert not any(is_int(value, 1) for value in (True, 1.0, "1", None, 2))
    assert not is_int(False, 0)
