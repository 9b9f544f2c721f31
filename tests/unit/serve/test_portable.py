"""Files for other runtimes give the scorer's answers, for every expert, gate, kind of rows and multi-valued feature, and any number of
rows."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dmoe.checkpoint.tensors import write_tensors
from dmoe.cli.main import main
from dmoe.config.model_sections import ModelConfig
from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.reading.bags import Bags
from dmoe.errors import UserError
from dmoe.serve.export.delta import make_delta
from dmoe.serve.export.format import AOTI, DENSE, ONNX, ONNX_DENSE, TABLES, ScoredFeature, read_scorer_file, write_scorer_file
from dmoe.serve.export.materialise import materialise
from dmoe.serve.portable import export, onnx_files
from dmoe.serve.portable.triton import config_of
from dmoe.serve.scorer import Scorer
from tests.unit.serve.test_scored_bags import with_pooling
from tests.unit.serve.test_scorer import MODEL, batch, by_hand, make

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
EVERY_EXPERT = [
    ("crossnet", {}),
    ("crossnet", {"low_rank": 3}),
    ("cin", {"layer_maps": [5, 4, 3]}),
    ("mlp", {"hidden": [8], "layer_norm": True}),
    ("gdcn", {}),
    ("fwfm", {}),
    ("gwpfm", {"groups": 2}),
    ("ipnn", {"hidden": [8]}),
    ("masknet", {"block_dim": 4}),
    ("masknet", {"block_dim": 4, "mode": "serial"}),
    ("finalmlp", {"hidden_a": [8], "hidden_c": [8], "num_heads": 4, "gate_fields_a": [0]}),
    ("wukong", {"fm_fields": 3, "linear_fields": 2, "rank": 2, "hidden": [8]}),
]


def changed(**switches: object) -> ModelConfig:
    return ModelConfig.model_validate(MODEL.model_dump() | switches)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        changed(gate="elementwise"),
        changed(gate="mmoe", mixture="logits", expert_tower="own"),
        changed(gate="mean"),
        changed(gate="dselect_k", gate_gamma=0.3),
    ],
    ids=lambda model: str(model.gate),
)
def test_every_expert_and_every_gate_score_as_the_model_does(tmp_path, model):
    # A gate reads the experts' outputs, which are alike: the other gates have some of the experts.
    mixture, table_RC = make(tmp_path, model=model, experts=EVERY_EXPERT if model is MODEL else EVERY_EXPERT[::4])
    found = export.add_format(str(tmp_path), "onnx", "dmoe", 400)
    assert found.keys() == {ONNX, ONNX_DENSE}
    scorer = Scorer(str(tmp_path))
    assert scorer.engine == "onnx"
    for rows in (1, 2, 9, 600):
        dense_BI, ids_BF = batch(rows)
        np.testing.assert_allclose(scorer.logits(dense_BI, ids_BF), by_hand(mixture, table_RC, dense_BI, ids_BF), atol=1e-5, rtol=1e-5)
    assert all(one.rows > 0 and one.logit < 1e-4 and "onnxruntime" in one.runtime for one in found.values())
    assert read_scorer_file(str(tmp_path)).portable == found
    with pytest.raises(UserError, match="C1: id 5 at row 2"):
        scorer.logits(dense_BI[:3], np.array([[0, 0], [1, 1], [2, 5]]))
    with pytest.raises(UserError, match="I1 is nan at row 0"):
        scorer.logits(np.array([[0, np.nan, 0]], np.float32), ids_BF[:1])
    assert scorer.logits(dense_BI[:0], ids_BF[:0]).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("rows", ["fp32", "fp16", "int8"])
def test_bags_and_every_kind_of_rows(tmp_path, rows, pooling):
    make(tmp_path, rows)
    with_pooling(tmp_path, pooling)
    export.add_format(str(tmp_path), "onnx", "dmoe", 400)
    reference, scorer = Scorer(str(tmp_path), engine="torch"), Scorer(str(tmp_path), engine="onnx")
    graph = onnx.load(str(tmp_path / ONNX), load_external_data=False).graph
    assert [one.name for one in graph.input] == ["dense", "ids", "C1.values", "C1.lengths"]
    beside = {one.name: {part.key: part.value for part in one.external_data}.get("location") for one in graph.initializer}
    assert (beside["rows"], beside["tower.layers.0.weight"]) == (TABLES, DENSE)
    assert (tmp_path / ONNX).stat().st_size + (tmp_path / ONNX_DENSE).stat().st_size < 60_000
    for lists in ([[0], [], [3, 3, 4], [2], [4, 0], [], [0, 1, 2, 3], [2, 2], []], [[]], [[1, 2]], [[], [4]] * 300):
        dense_BI, ids_BF = batch(len(lists))
        bags = {"C1": Bags(np.array([one for some in lists for one in some], np.int32), np.cumsum([0, *map(len, lists)]))}
        np.testing.assert_allclose(scorer.logits(dense_BI, ids_BF, bags), reference.logits(dense_BI, ids_BF, bags), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_graph_serves_again_for_other_weights_and_more_ids_and_a_delta_brings_it(tmp_path):
    for name in ("old", "new", "fresh"):
        (tmp_path / name).mkdir()
    make(tmp_path / "old", experts=EVERY_EXPERT)
    mixture, table_RC = make(tmp_path / "new", experts=EVERY_EXPERT)
    with torch.no_grad():
        for weight in mixture.parameters():
            weight.mul_(1.5)
    table_RC = np.concatenate([table_RC, table_RC[:2] + 1])
    rewrite(tmp_path / "new", mixture, table_RC)
    shutil.copytree(tmp_path / "new", tmp_path / "fresh", dirs_exist_ok=True)
    export.add_graph(str(tmp_path / "old"))
    export.add_graph(str(tmp_path / "new"), str(tmp_path / "old"))
    export.add_graph(str(tmp_path / "fresh"))
    assert contents(tmp_path / "new") == contents(tmp_path / "fresh")
    make_delta(str(tmp_path / "old"), str(tmp_path / "new"), "old", str(tmp_path / "delta"))
    place = materialise(str(tmp_path / "delta"), str(tmp_path / "made"))
    assert contents(Path(place)) == contents(tmp_path / "new")
    dense_BI, ids_BF = batch(300)
    ids_BF[:, 1] = np.arange(300) % 7
    np.testing.assert_allclose(
        Scorer(place, engine="onnx").logits(dense_BI, ids_BF), by_hand(mixture, table_RC, dense_BI, ids_BF), atol=1e-5, rtol=1e-5
    )


def rewrite(folder: Path, mixture: torch.nn.Module, table_RC: np.ndarray) -> None:
    """Other weights, and a second feature with as many ids as there are further rows."""
    state = {name: value.numpy() for name, value in mixture.state_dict().items()}
    for name, arrays in ((TABLES, {"rows": table_RC}), (DENSE, state)):
        with open(folder / name, "wb") as file:
            write_tensors(file, [(one, "F32", value.shape) for one, value in arrays.items()], list(arrays.values()))
    about = read_scorer_file(str(folder))
    features = [about.features[0], ScoredFeature(name="C1", cardinality=len(table_RC) - 7)]
    files = {name: file_sha256(str(folder / name)) for name in (TABLES, DENSE)}
    write_scorer_file(str(folder), about.model_copy(update={"features": features, "files": files, "reads": None}))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_products_of_int8_are_near_and_their_distance_is_kept(tmp_path, monkeypatch):
    # Weights that do not fit one file.
    monkeypatch.setattr(onnx_files, "LARGEST", 100)
    make(tmp_path, experts=EVERY_EXPERT)
    found = export.add_format(str(tmp_path), "onnx", "dmoe", 400, "int8")
    scorer, reference = Scorer(str(tmp_path)), Scorer(str(tmp_path), engine="torch")
    dense_BI, ids_BF = batch(300)
    exact, near = reference.logits(dense_BI, ids_BF), scorer.logits(dense_BI, ids_BF)
    assert np.abs(near - exact).max() > 1e-5
    assert np.abs(near - exact).mean() < 0.1 * exact.std()
    assert "int8" in found[ONNX].runtime
    assert all((tmp_path / f"{name}.data").exists() for name in (ONNX, ONNX_DENSE))
    assert any(node.op_type == "MatMulInteger" for node in onnx.load(str(tmp_path / ONNX), load_external_data=False).graph.node)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_dense_part_compiled(tmp_path):
    make(tmp_path)
    found = export.add_format(str(tmp_path), "aoti", "dmoe", 300)
    assert found[AOTI].logit < 1e-5
    assert export.aoti_file.bound_to() in found[AOTI].runtime
    assert Scorer(str(tmp_path)).engine == "torch"


@pytest.mark.slow
def test_a_triton_repository_is_a_scorer_too_and_its_config_one_of_tritons(tmp_path):
    folder = Path(export.scorer_folder("triton", str(tmp_path), "ctr"))
    folder.mkdir(parents=True)
    make(folder)
    export.add_format(str(folder), "triton", "ctr", 300)
    assert Scorer(str(folder)).engine == "onnx"
    config = parsed((tmp_path / "ctr" / "config.pbtxt").read_text())
    session = onnxruntime.InferenceSession(str(tmp_path / "ctr" / "1" / "model.onnx"))
    for ours, theirs in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [one.name for one in ours] == [one.name for one in theirs]
        for one, graph in zip(ours, theirs, strict=True):
            kind = {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}
            assert kind[type(one).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[one.data_type].name] == graph.type
            assert list(one.reshape.shape if one.HasField("reshape") else one.dims) == graph.shape[1:]


def parsed(text: str):
    """The text as Triton's own message, whose definition tritonclient brings."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    found = importlib.util.find_spec("tritonclient")
    if found is None:
        pytest.skip("needs tritonclient")
    # Not by its package, which wants grpc.
    path = Path(next(iter(found.submodule_search_locations or []))) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return text_format.Parse(text, module.ModelConfig())


def test_a_config_with_bags_is_not_batched_and_any_name_is_escaped(tmp_path):
    make(tmp_path)
    about = read_scorer_file(str(tmp_path))
    features = [about.features[0], ScoredFeature(name='ta"gs é', cardinality=5, pooling="sum")]
    config = parsed(config_of("m\\x", about.model_copy(update={"features": features})))
    assert (config.name, config.max_batch_size) == ("m\\x", 0)
    assert [(one.name, list(one.dims)) for one in config.input] == [
        ("dense", [-1, 3]),
        ("ids", [-1, 2]),
        ('ta"gs é.values', [-1]),
        ('ta"gs é.lengths', [-1]),
    ]
    assert [list(one.dims) for one in config.output] == [[-1], [-1]]


def test_answers_that_differ_are_refused(tmp_path, monkeypatch):
    make(tmp_path)
    scorer = Scorer(str(tmp_path))
    monkeypatch.setattr(export, "_runner", lambda *_: (lambda *rows: scorer.logits(*rows) + 1e-3, "another"))
    with pytest.raises(UserError, match=r" 0\.001"):
        export._compared(scorer, ONNX, 10)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--format", "onnx", "--output", "s3://bucket/x"], "--output s3://bucket/x"),
        (["--format", "triton", "--output", "x", "--name", "a/b"], "--name a/b"),
        (["--format", "aoti", "--output", "x"], "no-such-compiler"),
        (["--products", "int8", "--output", "x"], "--products int8"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch, given, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["export", "--run", "none", *given]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_an_engine_that_cannot_be_had_is_named_and_a_damaged_file_too(tmp_path):
    make(tmp_path)
    assert Scorer(str(tmp_path)).engine == "torch"
    with pytest.raises(UserError, match="--format onnx"):
        Scorer(str(tmp_path), engine="onnx")
    (tmp_path / ONNX_DENSE).write_bytes(b"no graph")
    about = json.loads((tmp_path / "scorer.json").read_text())
    about["files"][ONNX_DENSE] = "0" * 64
    (tmp_path / "scorer.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"dense\.onnx: damaged"):
        Scorer(str(tmp_path))
    with pytest.raises(UserError, match=r"dense\.onnx: .*ONNX Runtime"):
        Scorer(str(tmp_path), verify=False)
    assert Scorer(str(tmp_path), verify=False, engine="torch").engine == "torch"
