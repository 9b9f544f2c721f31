"""Mutations of configs, schemas, ladders, manifests, cardinalities and devices: one line, or sound."""

import json

import pytest

from dmoe.config.config import Config, dump_config, parse_config
from dmoe.data.dataset.describe import describe
from dmoe.data.dataset.describe_view import describe_document
from dmoe.data.dataset.earlier import with_identities
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import load_schema
from dmoe.model.build import make_blueprint, outline_of
from dmoe.report.ladder.spec import load_spec, resolve
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import load_sizes
from dmoe.testing.small_data import make_data_set
from tests.unit.given import SHARES, hold, outcome, writer

CONFIG = Config(
    data={"path": "d", "features": ["C1", "C2"]},
    model={"experts": ["crossnet", {"kind": "mlp", "hidden": [8, 4], "dropout": 0.1}], "expert_dim": 8},
    sharding={"tables": {"C1": {"types": ["row_wise"], "kernels": ["fused"], "min_partition": 4, "ranks": [0], "pooling_factor": 2.0}}},
).model_dump(mode="json")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data_set(folder, {"train": 40, "validation": 10, "test": 10})
    return folder


@pytest.mark.parametrize("part", sorted(CONFIG))
@SHARES
def test_configs(share, part, data, tmp_path):
    manifest = load_manifest(str(data))

    def read():
        config = parse_config((tmp_path / "c.yaml").read_text(), "c.yaml")
        assert parse_config(dump_config(config), "c.yaml") == config
        if part == "model":
            outline_of(config, make_blueprint(config, manifest))

    # The other sections have their defaults: a longer text takes longer to parse, and shows nothing more.
    hold(share, {one: CONFIG[one] for one in {"model", part}}, writer(tmp_path / "c.yaml"), read, (part,))


SCHEMA = {
    "format": "csv",
    "delimiter": ";",
    "header": False,
    "columns": ["a", "b", "t", "price"],
    "quote": "'",
    "missing": ["NA"],
    "label": {"column": "a", "positive": "yes"},
    "time": {"column": "t", "format": "%y%m%d%H"},
    "weight": "w",
    "group": "g",
    "dense": [{"name": "price", "column": "price", "transform": "log1p"}],
    "categorical": [
        {"name": "b", "separator": "|", "pooling": "mean", "max_values": 20, "min_count": 5},
        {"name": "c", "column": "price", "bucket": {"edges": [0.5, 1.5]}},
        {"name": "x", "cross": ["c", "t"], "max_ids": 7},
    ],
}


@SHARES
def test_schemas(share, tmp_path):
    hold(share, SCHEMA, writer(tmp_path / "s.yaml"), lambda: load_schema(str(tmp_path / "s.yaml")).used())


LADDER = {
    "title": "T",
    "base": "base.yaml",
    "variants": {
        "a": {"label": "A", "set": {"model": {"expert_dim": 8}}, "why": "so"},
        "b": {"like": "a", "set": {"correlation": {"alpha": 0.1}}},
    },
    "rungs": ["a", "b"],
    "controls": [{"variant": "b", "against": "a", "question": "?"}],
    "dose": {"key": "correlation.alpha", "variants": {"a": 0.0, "b": 0.1}},
    "ensembles": {"e": {"label": "E", "of": ["a", "b"], "why": ""}},
}


@SHARES
def test_ladders(share, tmp_path):
    (tmp_path / "base.yaml").write_text("model: {experts: [mlp]}")
    path = str(tmp_path / "l.yaml")

    def read():
        spec = load_spec(path)
        for name in spec.variants:
            resolve(spec, path, name, 0, [], "r")
        for name in [*spec.variants, *spec.ensembles]:
            spec.label(name)

    hold(share, LADDER, writer(tmp_path / "l.yaml"), read)


@SHARES
def test_manifests(share, data, tmp_path):
    sound = json.loads((data / "manifest.json").read_text()) | {"weight": "w", "group": "g", "weighted_rate": 0.5, "made_by": {"a": [1]}}
    sound["categorical"][0] |= {"pooling": "mean", "mean_ids": 2.0}

    def read():
        manifest = load_manifest(str(tmp_path))
        assert len(manifest.schema_hash) == 16
        for name in manifest.splits:
            outcome(lambda name=name: manifest.base_rate(manifest.split(name) and name))
        blueprint = make_blueprint(Config(model={"experts": ["mlp"]}), manifest)
        assert all(one.rows >= 2 for one in blueprint.tables)

    hold(share, sound, writer(tmp_path / "manifest.json"), read)


LOG_SCHEMA = """
label: {column: y}
time: {column: t, format: "%Y-%m-%d %H"}
dense: [{name: p, transform: standardise}, {name: q, transform: log1p, column: p}]
categorical: [c, {name: tags, separator: "|", pooling: mean}, {name: h, part: hour}, {name: b, column: p, bucket: {quantiles: 3}}]
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set that keeps how its log was read."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "schema.yaml").write_text(LOG_SCHEMA)
    rows = [
        f"{row % 3 % 2},2024-03-{1 + row // 40:02d} {row % 24:02d},{row * 7 % 11 / 4},{'abc'[row % 3]},x|{row % 5}" for row in range(120)
    ]
    (folder / "log.csv").write_text("y,t,p,c,tags\n" + "\n".join(rows) + "\n")
    schema = load_schema(str(folder / "schema.yaml"))
    preprocess(Options([str(folder / "log.csv")], str(folder / "d"), schema=schema, where="schema.yaml", min_count=1))
    return folder / "d"


@SHARES
def test_what_a_data_set_keeps_of_its_making(share, prepared):
    sound = json.loads((prepared / "manifest.json").read_text())

    def read():
        manifest = load_manifest(str(prepared))
        load_kept(str(prepared))
        with_identities(manifest, str(prepared))
        describe_document(describe(str(prepared))).text()

    hold(share, sound, writer(prepared / "manifest.json"), read, ("made_by",))


@SHARES
def test_cardinalities_and_devices(share, tmp_path):
    path = tmp_path / "x.yaml"
    hold(share, {"C1": 10, "C2": 20, "dense": 3}, writer(path), lambda: load_sizes(Config(), str(path)))
    device = {"base": "h100", "name": "mine", "kind": "cuda", "hbm": 8e10, "network": 25e9, "usd_an_hour": 1}
    hold(share, device, writer(path), lambda: parse_cluster(f"2x4:{path}").name)
