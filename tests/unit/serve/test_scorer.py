"""An exported scorer: its rows, its errors, its independence of TorchRec; equality with evaluation is tested end to end."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from dmoe.checkpoint.tensors import write_tensors
from dmoe.config.model_sections import ModelConfig
from dmoe.data.dataset.compatibility import Inputs
from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity, tokens_digest
from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature
from dmoe.errors import UserError
from dmoe.model.assemble import assemble
from dmoe.serve.export.format import DENSE, DTYPES, TABLES, ScoredExpert, ScoredFeature, ScorerFile, write_scorer_file
from dmoe.serve.export.quantize import quantise
from dmoe.serve.scorer import Scorer

CARDINALITY, DIMS, EXPERTS = (7, 5), [4, 6], [("mlp", {"hidden": [8]}), ("crossnet", {"num_layers": 2})]
MODEL = ModelConfig(embedding={"dim": 4}, experts=["mlp", "crossnet"], expert_dim=8, tower={"hidden": [4]})

INPUTS = Inputs(
    dense=tuple(DenseFeature(name=f"I{i}", transform="none", missing_share=0.0, identity=NumberIdentity()) for i in range(3)),
    categorical=tuple(
        CategoricalFeature(
            name=f"C{i}",
            kind="token",
            cardinality=size,
            missing_share=0.0,
            rare_share=0.0,
            identity=TokenIdentity(source="text", tokens=tokens_digest(np.arange(size - 2))),
        )
        for i, size in enumerate(CARDINALITY)
    ),
)


def make(folder, rows: str = "fp32", model: ModelConfig = MODEL, experts=EXPERTS) -> tuple[torch.nn.Module, np.ndarray]:
    """Writes a scorer of random weights, whose experts read the two table sets in turn; returns its mixture and its rows [R, C] float32."""
    torch.manual_seed(0)
    set_of_expert = [index % 2 for index in range(len(experts))]
    mixture = assemble(model, fields=2, dense=3, experts=experts, set_dims=DIMS, set_of_expert=set_of_expert).eval()
    table_RC = np.random.default_rng(0).normal(size=(sum(CARDINALITY), sum(DIMS))).astype(np.float32)
    entries, arrays = [("rows", DTYPES[rows], table_RC.shape)], [table_RC.astype({"fp32": "f4", "fp16": "f2", "int8": "f4"}[rows])]
    if rows == "int8":
        arrays = list(quantise(table_RC, DIMS))
        entries.append(("scale", "F32", arrays[1].shape))
    with open(folder / TABLES, "wb") as file:
        write_tensors(file, entries, arrays)
    state = {name: value.numpy() for name, value in mixture.state_dict().items()}
    with open(folder / DENSE, "wb") as file:
        write_tensors(file, [(name, "F32", value.shape) for name, value in state.items()], list(state.values()))
    about = ScorerFile(
        variant="test",
        rows=rows,
        step=1,
        schema_hash="",
        features=[ScoredFeature(name=f"C{i}", cardinality=size) for i, size in enumerate(CARDINALITY)],
        dense=["I0", "I1", "I2"],
        experts=[ScoredExpert(kind=kind, options=options, table_set=i % 2) for i, (kind, options) in enumerate(experts)],
        set_dims=DIMS,
        model=model,
        bf16=False,
        files={name: file_sha256(str(folder / name)) for name in (TABLES, DENSE)},
        reads=INPUTS,
    )
    write_scorer_file(str(folder), about)
    return mixture, table_RC


def batch(rows: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 3)).astype(np.float32), np.stack([rng.integers(0, size, rows) for size in CARDINALITY], 1)


def by_hand(mixture: torch.nn.Module, table_RC: np.ndarray, dense_BI: np.ndarray, ids_BF: np.ndarray) -> np.ndarray:
    rows_BFC = np.stack([table_RC[ids_BF[:, 0]], table_RC[7 + ids_BF[:, 1]]], 1)
    sets = [torch.from_numpy(rows_BFC[:, :, :4].copy()), torch.from_numpy(rows_BFC[:, :, 4:].copy())]
    with torch.no_grad():
        return mixture(torch.from_numpy(dense_BI), sets).logit_B.numpy()


@pytest.mark.parametrize(("rows", "bound"), [("fp32", 1e-6), ("fp16", 5e-3), ("int8", 5e-2)])
def test_scores_are_the_models(tmp_path, rows, bound):
    mixture, table_RC = make(tmp_path, rows)
    dense_BI, ids_BF = batch()
    scorer = Scorer(str(tmp_path))
    expected = by_hand(mixture, table_RC, dense_BI, ids_BF)
    np.testing.assert_allclose(scorer.logits(dense_BI, ids_BF), expected, atol=bound)
    np.testing.assert_allclose(scorer.scores(dense_BI, ids_BF), 1 / (1 + np.exp(-expected)), atol=bound / 4 + 1e-6)


@pytest.mark.parametrize(
    "switches",
    [
        {"mixture": "logits"},
        {"mixture": "logits", "expert_tower": "own", "gate": "mmoe"},
        {"expert_tower": "own"},
        {"gate": "dselect_k", "gate_experts": 1, "gate_gamma": 0.1},
    ],
    ids=str,
)
def test_scores_are_the_models_whatever_is_mixed(tmp_path, switches):
    mixture, table_RC = make(tmp_path, model=ModelConfig.model_validate(MODEL.model_dump() | switches))
    dense_BI, ids_BF = batch()
    np.testing.assert_allclose(Scorer(str(tmp_path)).logits(dense_BI, ids_BF), by_hand(mixture, table_RC, dense_BI, ids_BF), atol=1e-6)


def test_a_quantised_number_is_off_by_half_a_scale_at_most():
    rows_NC = np.random.default_rng(2).normal(size=(50, 10)).astype(np.float32)
    rows_NC[3, :4] = 0
    quantised_NC, scale_NS = quantise(rows_NC, [4, 6])
    back_NC = quantised_NC * np.repeat(scale_NS, [4, 6], axis=1)
    off = np.abs(back_NC - rows_NC)
    for columns in (slice(0, 4), slice(4, 10)):
        assert (off[:, columns] <= np.abs(rows_NC[:, columns]).max(1, keepdims=True) / 254 * 1.0001).all()
    assert not back_NC[3, :4].any()


def test_batches_do_not_matter(tmp_path):
    make(tmp_path)
    dense_BI, ids_BF = batch(64)
    scorer = Scorer(str(tmp_path))
    parts = [scorer.logits(dense_BI[i : i + 7], ids_BF[i : i + 7]) for i in range(0, 64, 7)]
    np.testing.assert_allclose(np.concatenate(parts), scorer.logits(dense_BI, ids_BF), atol=1e-6)


def test_an_id_without_a_row_is_named(tmp_path):
    make(tmp_path)
    dense_BI, ids_BF = batch()
    ids_BF[4, 1] = 5
    with pytest.raises(UserError, match=r"C1: id 5 at row 4, .* 5 ids"):
        Scorer(str(tmp_path)).logits(dense_BI, ids_BF)


def test_damage_is_named(tmp_path):
    make(tmp_path)
    data = bytearray((tmp_path / TABLES).read_bytes())
    data[-1] ^= 1
    (tmp_path / TABLES).write_bytes(data)
    with pytest.raises(UserError, match=r"tables\.safetensors: damaged"):
        Scorer(str(tmp_path))
    (tmp_path / "scorer.json").write_text("{}")
    with pytest.raises(UserError, match=r"scorer\.json"):
        Scorer(str(tmp_path))
    with pytest.raises(UserError, match=r"none.*scorer\.json"):
        Scorer(str(tmp_path / "none"))


def test_scoring_imports_no_torchrec():
    code = "import sys, dmoe.serve.scorer, dmoe.serve.score_dataset, dmoe.serve.export.export; sys.exit('torchrec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
