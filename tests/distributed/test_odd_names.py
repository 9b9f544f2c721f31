"""Any text is a feature's name: on several ranks, in both layouts, through plans, constraints and checkpoints."""

import numpy as np
import pytest

from dmoe.config.config import override_key
from dmoe.data.dataset.manifest import load_manifest
from dmoe.sharding.plan.plan_file import read_plan, write_plan
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import describe
from dmoe.testing import resume
from dmoe.testing.small_run import open_small, small_config, train_and_tell
from tests.odd_names import CATEGORICAL, make_odd

TYPES = ("row_wise", "table_wise", "column_wise")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return make_odd(tmp_path_factory.mktemp("odd"))


def constraints() -> list[str]:
    """One sharding type after the other, feature by feature."""
    keys = [override_key("sharding", "tables", name, "types") for name in CATEGORICAL]
    return [f"{key}=[{TYPES[place % len(TYPES)]}]" for place, key in enumerate(keys)]


def planned_types(data: str, *overrides: str) -> dict[str, set[str]]:
    """The sharding types of every feature's tables in the plan of a session that is really open."""
    found: dict[str, set[str]] = {}
    for row in open_small(small_config(data, *overrides)).plan["tables"].values():
        found.setdefault(row["feature"], set()).add(row["sharding_type"])
    return found


@pytest.mark.parametrize("layout", ["wide", "separate"])
def test_a_constraint_is_of_the_feature_whose_name_it_is(ranks, odd, layout):
    given = [*constraints(), f"model.embedding.layout={layout}"]
    expected = {name: {TYPES[place % len(TYPES)]} for place, name in enumerate(CATEGORICAL)}
    for found in ranks(2).run(planned_types, odd, *given):
        assert found == expected


def test_a_plan_file_of_odd_names_is_read_and_used(ranks, odd, tmp_path):
    config = small_config(odd, *constraints(), "model.embedding.layout=separate")
    path = str(tmp_path / "plan.json")
    write_plan(path, describe(config, load_manifest(odd)).plan(parse_cluster("1x2:cpu")))
    assert len(read_plan(path)["tables"]) == 3 * len(CATEGORICAL)
    given = (f"sharding.plan={path}", "model.embedding.layout=separate")
    (expected,) = ranks(1).run(train_and_tell, odd, 3, "sharding.types=[table_wise]")
    for losses, *_ in ranks(2).run(train_and_tell, odd, 3, *given):
        assert losses == pytest.approx(expected[0], rel=1e-5)


def test_a_checkpoint_of_odd_names_goes_from_one_layout_to_the_other(ranks, odd, tmp_path):
    folder = str(tmp_path / "step")
    before = ranks(2).run(resume.save, odd, folder, "sharding.types=[row_wise]", "model.embedding.layout=separate")[0]
    loaded, _ = ranks(1).run(resume.load_and_go_on, odd, folder, "model.embedding.layout=wide")[0]
    assert loaded.keys() == before.keys()
    assert {name.rpartition("/")[0] for name in before} >= set(CATEGORICAL)
    for name in before:
        np.testing.assert_array_equal(loaded[name], before[name], err_msg=name)
