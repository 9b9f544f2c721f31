"""Twenty thousand features: what is done for each of them does not grow with their number."""

import fnmatch
import json
from typing import Any

import pytest

from dmoe.config.config import parse_config
from dmoe.data.dataset.manifest import CategoricalFeature, load_manifest
from dmoe.data.prepare.schema import parse_schema
from dmoe.errors import UserError
from dmoe.model.embedding.tables import make_tables
from dmoe.names import first_twice
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.constraints import rules_for

MANY = 20_000


class Counted(str):
    """A name that counts how often it is compared."""

    compared = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_name_that_is_there_twice_is_found_in_one_pass():
    names = [Counted(f"f{number}") for number in range(MANY)]
    assert first_twice(names) is None
    assert first_twice([*names, Counted("f7"), Counted("f8")]) == "f7"
    assert Counted.compared < 4 * MANY


def features(twice: str = "") -> list[dict[str, Any]]:
    one = {"kind": "token", "cardinality": 9, "missing_share": 0.0, "rare_share": 0.0}
    return [one | {"name": name} for name in [*(f"f{number}" for number in range(MANY)), *([twice] if twice else [])]]


def test_a_manifest_and_a_schema_of_many_features_name_the_one_that_is_there_twice(tmp_path):
    manifest = {"format": "dmoe-manifest", "version": 1, "dataset": "many", "dense": [], "categorical": features(), "splits": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert len(load_manifest(str(tmp_path)).categorical) == MANY
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"categorical": features("f12345")}))
    with pytest.raises(UserError, match="'f12345'"):
        load_manifest(str(tmp_path))
    with pytest.raises(UserError, match="'f12345'"):
        parse_schema({"label": "y", "categorical": [one["name"] for one in features("f12345")]}, "s.yaml")


def test_a_constraint_that_is_a_name_is_looked_up(monkeypatch):
    tried = []
    monkeypatch.setattr(fnmatch, "fnmatchcase", lambda name, pattern: tried.append(pattern) or name == "f3")
    tables = make_tables([CategoricalFeature(**one) for one in features()[:300]], [4, 4], "separate")
    given = {f"f{number}": {"types": ["row_wise"]} for number in range(300)} | {"f?": {"types": ["table_wise"]}}
    config = parse_config(json.dumps({"sharding": {"tables": given}}), "x.yaml")
    rules = rules_for(tables, config, parse_cluster("1x2:cpu"))
    assert set(tried) == {"f?"}
    assert rules["f3__0"].types == ("table_wise",)
    assert rules["f4__1"].types == ("row_wise",)
