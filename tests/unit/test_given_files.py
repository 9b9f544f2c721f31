"""Every field of every file that a user may be given, in turn of another type, huge, nested, missing or misspelt: one line, or sound.

Sound means that whatever reads the file goes on with it: its consumers run on what was accepted.
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dmoe.checkpoint import index as checkpoint
from dmoe.checkpoint import inspect
from dmoe.checkpoint.load import check_fits
from dmoe.checkpoint.progress import Progress, progress_from
from dmoe.checkpoint.tensors import write_tensors
from dmoe.config.config import Config, dump_config, parse_config
from dmoe.data.dataset.describe import describe
from dmoe.data.dataset.describe_view import describe_document
from dmoe.data.dataset.earlier import with_identities
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import load_schema
from dmoe.errors import UserError
from dmoe.model.build import make_blueprint, outline_of
from dmoe.model.embedding.tables import Section, Table
from dmoe.report.ladder.spec import load_spec, resolve
from dmoe.report.run_page import run_document
from dmoe.report.runs import load_run
from dmoe.serve.scorer import Scorer
from dmoe.sharding.plan.plan_file import as_text as plan_text
from dmoe.sharding.plan.plan_file import read_plan
from dmoe.sharding.plan.report.diff import diff_document, difference
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.report.show import View, plan_document
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.cost.calibrate import compare
from dmoe.sharding.planner.cost.calibrate_words import calibration_document
from dmoe.sharding.planner.planning_model import load_sizes
from dmoe.testing.small_data import make_data_set
from dmoe.train.optimizer.schedule import Schedule
from tests.unit.serve import test_scorer
from tests.unit.sharding.small_plans import plan_of
from tests.unit.sharding.small_plans import table as planned

NESTED = "[" * 50 + "]" * 50
ODD = [
    *("null", "true", "0", "-1", "1.5", "1e300", "1e999", "9" * 18, "9" * 30, "9" * 6000),
    *('""', '"x"', '"a\\nb"', '"s3://far/x"', '"\\u0000"', '"\\ud800"', json.dumps("long " * 400)),
    *("[]", "{}", '{"a": 1}', "[1, 2]", NESTED, "[" * 70 + "]" * 70),
]
MARK = "@@odd@@"


def places(tree, path=()):
    """Paths to every node; of a list only to the first two."""
    yield path
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree[:2]) if isinstance(tree, list) else ():
        yield from places(value, (*path, key))


def changed(tree, path, value):
    tree = json.loads(json.dumps(tree))
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


def mutations(tree, share, under=()):
    """(what was done, text) for every place and one in `share` of the odd values, and for every key that is missing or misspelt."""
    for number, path in enumerate(list(places(tree))):
        if path[: len(under)] != under or not path:
            continue
        text = json.dumps(changed(tree, path, MARK))
        for odd in ODD[number % share :: share]:
            yield f"{path} = {odd[:40]}", text.replace(json.dumps(MARK), odd)
        if isinstance(path[-1], str):
            whole = json.loads(json.dumps(tree))
            node = whole
            for key in path[:-1]:
                node = node[key]
            value = node.pop(path[-1])
            yield f"{path} is missing", json.dumps(whole)
            node[f"{path[-1]}\x1b[31m"] = value
            yield f"{path} is misspelt", json.dumps(whole)


def outcome(read):
    """None where it is accepted, else the message."""
    try:
        read()
    except UserError as error:
        return str(error)
    return None


def hold(share, tree, write, read, under=()):
    """Every mutation is refused in one line, or sound."""
    accepted, refused, wrong = 0, 0, []
    write(json.dumps(tree))
    assert outcome(read) is None, outcome(read)
    for what, text in mutations(tree, share, under):
        write(text)
        try:
            message = outcome(read)
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
            continue
        accepted, refused = accepted + (message is None), refused + (message is not None)
        if message is not None and not (message.isprintable() and len(message) < 1000):
            wrong.append(f"{what}: {message[:300]!r}")
    assert not wrong, "\n".join([f"{len(wrong)} of {accepted + refused + len(wrong)}", *wrong[:10]])
    # A search that is refused always, or never, would show nothing.
    assert min(accepted, refused) > 0


def writer(path: Path):
    return lambda text: path.write_text(text)


@pytest.fixture(params=[5, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def share(request):
    """One in so many of the odd values, in turn from place to place."""
    return request.param


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
def test_configs(share, part, data, tmp_path):
    manifest = load_manifest(str(data))

    def read():
        config = parse_config((tmp_path / "c.yaml").read_text(), "c.yaml")
        assert parse_config(dump_config(config), "c.yaml") == config
        if part == "model":
            outline_of(config, make_blueprint(config, manifest))

    hold(share, CONFIG, writer(tmp_path / "c.yaml"), read, (part,))


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


def test_what_a_data_set_keeps_of_its_making(share, prepared):
    sound = json.loads((prepared / "manifest.json").read_text())

    def read():
        manifest = load_manifest(str(prepared))
        load_kept(str(prepared))
        with_identities(manifest, str(prepared))
        describe_document(describe(str(prepared))).text()

    hold(share, sound, writer(prepared / "manifest.json"), read, ("made_by",))


def test_cardinalities_and_devices(share, tmp_path):
    path = tmp_path / "x.yaml"
    hold(share, {"C1": 10, "C2": 20, "dense": 3}, writer(path), lambda: load_sizes(Config(), str(path)))
    device = {"base": "h100", "name": "mine", "kind": "cuda", "hbm": 8e10, "network": 25e9, "usd_an_hour": 1}
    hold(share, device, writer(path), lambda: parse_cluster(f"2x4:{path}").name)


PROGRESS = {
    "step": 3,
    "steps_before": 0,
    "epoch": 0,
    "row": 3,
    "batch_size": 1,
    "order": "o",
    "due": False,
    "best_auc": 0.6,
    "best_step": 2,
    "waited": 0,
    "trained_rows": 3,
    "seconds": 1.5,
    "schedule": {"plateau": 1.0, "waited": 0, "best": 0.6},
    "window": {"since": 0, "steps": 3, "sums": [1.0, 0.0, 0.5, 3.0]},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A checkpoint of one table and its state, in two pieces, and of one dense parameter."""
    folder = tmp_path_factory.mktemp("checkpoint")
    arrays = {"C1/0|weight|0": np.ones((3, 2), "f4"), "C1/0|weight|3": np.ones((1, 2), "f4"), "C1/0|sum|0": np.ones(4, "f4")}
    parts = {"tables-00000-00000.safetensors": arrays, "dense.safetensors": {"model/w": np.ones(3, "f4")}}
    files = {}
    for name, part in parts.items():
        with (folder / name).open("wb") as file:
            files[name] = write_tensors(file, [(key, "F32", x.shape) for key, x in part.items()], part.values())
    pieces = []
    for key, array in arrays.items():
        table_name, state, row = key.split("|")
        width = array.shape[1] if array.ndim == 2 else 0
        pieces.append(checkpoint.Piece(table_name, state, int(row), 0, len(array), width, "tables-00000-00000.safetensors", key))
    checkpoint.write_index(str(folder), checkpoint.Index({"C1/0": (4, 2)}, tuple(pieces), files, PROGRESS))
    return folder


def test_checkpoints(share, kept, tmp_path):
    """With a checksum that holds: whoever makes up a file makes up its checksum."""
    sound = json.loads((kept / checkpoint.INDEX).read_text())
    for name in sound["files"]:
        (tmp_path / name).write_bytes((kept / name).read_bytes())

    def write(text):
        try:
            tree = json.loads(text)
            tree["checksum"] = hashlib.sha256(
                json.dumps({k: v for k, v in tree.items() if k != "checksum"}, sort_keys=True).encode()
            ).hexdigest()
            text = json.dumps(tree)
        except (ValueError, RecursionError, TypeError):
            pass
        (tmp_path / checkpoint.INDEX).write_text(text)

    def read():
        inspect.inspect(str(tmp_path))
        inspect.verify(str(tmp_path))
        contents = inspect.Contents(str(tmp_path))
        for name in contents.names():
            list(contents.blocks(name))
        progress = progress_from(contents.index.progress, "index.json")
        Schedule(Config().optimizer.schedule, 10).load_state(progress.schedule)
        assert isinstance(progress, Progress)
        assert progress.window is None or len(progress.window["sums"]) == 4

    hold(share, sound, write, read)


def test_a_model_of_other_shapes_is_refused_before_it_has_memory(kept):
    def tables(rows=4, dim=2):
        return [Table("C1", "t_C1", "C1", rows, (Section(0, 0, dim),))]

    def dense(*shape, dtype=torch.float32):
        module = torch.nn.Module()
        module.w = torch.nn.Parameter(torch.empty(*shape, dtype=dtype, device="meta"))
        return module

    assert check_fits(str(kept), tables(), dense(3)).index.tables == {"C1/0": (4, 2)}
    for rows, dim, module, named in [
        (1 << 40, 2, dense(3), "table 'C1/0'"),
        (4, 1 << 20, dense(3), "table 'C1/0'"),
        (4, 2, dense(1 << 40), "parameter 'w'"),
        (4, 2, dense(3, 1), "parameter 'w'"),
        (4, 2, dense(3, dtype=torch.float64), "parameter 'w'"),
    ]:
        with pytest.raises(UserError, match=named):
            check_fits(str(kept), tables(rows, dim), module)


def test_plans(share, tmp_path):
    tables = {
        "R": planned(10, 8, "row_wise", (0, 0, 5, 8, 0), (5, 0, 5, 8, 1)),
        "T": planned(5, 7, "table_wise", (0, 0, 5, 7, 1)),
        "D": planned(4, 8, "data_parallel"),
    }
    tried = {"what": "table_wise", "shards": 1, "shard_ms": 0.1, "all_ms": 0.1, "bytes": 100, "plan_ms": 0.2, "chosen": True}
    tables["T"] |= {"decided": "so", "tried": [tried, tried | {"plan_ms": None, "chosen": False}]}
    sound = plan_of(tables) | {"comm_precision": "fp16", "predicted": {"ranks": []}}
    other = tmp_path / "other.json"
    other.write_text(plan_text(sound))
    path = str(tmp_path / "plan.json")

    def read():
        plan = read_plan(path)
        figures = figures_of(plan, path)
        plan_document(figures, View("size", "*", "", None, "*")).text()
        found = difference(plan, read_plan(str(other)), path, str(other))
        diff_document(found, path, str(other)).text()

    hold(share, sound, writer(tmp_path / "plan.json"), read)


def test_measurements(share, tmp_path):
    plan = plan_of({"T": planned(5, 8, "table_wise", (0, 0, 5, 8, 1))})
    shard = {"table": "T", "row": 0, "column": 0, "rows": 5, "columns": 8, "weights": 160, "state": 160}
    rank = {"sent": {"all_to_all": 10.0}, "step_ms": 1.0, "forward_lookup_ms": 0.1, "backward_lookup_ms": 0.1, "exchange_ms": 0.1}
    ranks = [{"rank": 0, "shards": [], "peak_bytes": 1000, **rank}, {"rank": 1, "shards": [shard], "peak_bytes": 1000, **rank}]
    sound = {"format": "dmoe-measured", "version": 1, "device": "cpu", "steps": 2, "plan": plan, "ranks": ranks}
    path = tmp_path / "measured.json"

    def read():
        from dmoe.cli.plan.calibrate import _read

        calibration_document(compare(_read(str(path)), "measured.json")).text()

    hold(share, sound, writer(path), read)


def test_scorers(share, tmp_path):
    test_scorer.make(tmp_path)
    sound = json.loads((tmp_path / "scorer.json").read_text())
    dense_BI, ids_BF = test_scorer.batch(2)

    def read():
        scorer = Scorer(str(tmp_path), verify=False)
        scorer.logits(dense_BI, ids_BF)

    hold(share, sound, writer(tmp_path / "scorer.json"), read)


FIGURES = {
    "rows": 100,
    "positives": 30,
    "auc": 0.7,
    "logloss": 0.5,
    "ne": 0.9,
    "calibration": 1.0,
    "cec": 0.1,
    "cec_floor": 0.05,
    "cec_by_class": [0.1, 0.2],
    "cec_matrix": [[0.5, 0.1], [0.1, 0.5]],
    "cka_matrix": [[1.0, 0.2], [0.2, 1.0]],
    "dead_dims": [0, 1],
    "expert_variance": [0.5, 0.4],
    "expert_auc": [0.6, 0.65],
    "expert_left_out_auc": [0.69, 0.68],
    "gate_mass": [0.5, 0.5],
    "effective_experts": 2.0,
    "samples_per_second": 100.0,
    "eval_samples_per_second": 1e3,
    "data": "d",
    "split": "test",
}


@pytest.fixture
def run(tmp_path):
    config = parse_config("model: {experts: [mlp, crossnet]}", "c")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    (tmp_path / "metrics.json").write_text(json.dumps(FIGURES))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 1, "loss": 0.6}) + "\n")
    return tmp_path


def test_figures_of_a_run(share, run):
    def read():
        view = run_document([load_run(str(run))], "t")
        assert view.text()
        assert view.html()

    hold(share, FIGURES, writer(run / "metrics.json"), read)
    line = {"kind": "validation", "step": 3, "auc": 0.6, "cec": 0.2, "loss": 0.6}
    (run / "metrics.json").write_text(json.dumps(FIGURES))
    hold(share, line, writer(run / "metrics.jsonl"), read)


def test_a_figure_that_an_earlier_run_could_not_tell_is_undefined(run):
    (run / "metrics.json").write_text(json.dumps(FIGURES | {"calibration": math.nan, "auc": None}))
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": NaN}\n')
    found = load_run(str(run))
    assert found.metrics["calibration"] is None
    assert found.history["train"][0]["loss"] is None
