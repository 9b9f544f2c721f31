"""Models with switches on, trained for a few steps and exported: the scorer's logits are the model's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dmoe.config.config import load_config, parse_config
from dmoe.data.dataset.dataset import Dataset
from dmoe.errors import UserError
from dmoe.model.budget.cost import cost_of
from dmoe.online.command import check
from dmoe.serve.encoding.random_rows import draw
from dmoe.serve.export.delta import Unlike, make_delta
from dmoe.serve.export.format import ONNX_DENSE
from dmoe.serve.portable.export import add_format
from dmoe.serve.score_dataset import score_split
from dmoe.serve.scorer import Scorer
from dmoe.testing.small_scorer import small_scorer
from dmoe.train.trainer import Trainer

SWITCHES = {
    "batch norm": ("model.expert_norm=batch",),
    "batch norm under a sparse gate": ("model.expert_norm=batch", "model.gate=dselect_k", "model.gate_experts=1", "model.gate_gamma=0.01"),
    "light": ("model.embedding.sets=light", "model.embedding.private_ids=5"),
    "light, of sums, separate": ("model.embedding.sets=light", "model.embedding.private_ids=30", "model.embedding.layout=separate"),
    "hashed": ("model.embedding.sets=hashed", "model.embedding.hashed_rows=7"),
    "light, padded": ("model.embedding.sets=light", "model.embedding.private_ids=1", "model.embedding.dim=6"),
}


def logits_of_the_model(folder: Path) -> np.ndarray:
    """Of the checkpoint, on the test rows in the files' order."""
    (checkpoint,) = (folder / "run" / "checkpoints").iterdir()
    config, dataset = load_config(str(folder / "run" / "config.yaml")), Dataset(str(folder / "data"))
    trainer = Trainer(config, dataset.manifest)
    trainer.load(str(checkpoint))
    trainer.session.sharded.eval()
    logits = []
    with torch.no_grad():
        for batch in trainer.session.reader("test", in_order=True).batches(32, 0, 1):
            logits.append(trainer.session.sharded(batch)[1][1].logit_B[batch.weight_B > 0].numpy())
    return np.concatenate(logits)


@pytest.mark.parametrize("own_rows", [1 << 30, 12, 1], ids="codebooks of features from {} rows on".format)
@pytest.mark.parametrize(
    "switches",
    [(), ("model.embedding={sets: light, private_ids: 7, dim: 6}",), ("model.embedding={sets: hashed, hashed_rows: 9}",)],
    ids=["full", "light", "hashed"],
)
def test_quantised_rows_are_exact_where_there_are_no_more_rows_than_centroids(tmp_path, monkeypatch, switches, own_rows):
    """Whatever shares a codebook: the scorer finds each feature's own, block and all."""
    monkeypatch.setattr("dmoe.model.embedding.product_quantization.OWN_ROWS", own_rows)
    scorer = Scorer(small_scorer(str(tmp_path), settings=switches, rows="pq"))
    found = np.concatenate([logit_B for logit_B, _ in score_split(scorer, str(tmp_path / "data"), "test", 50)])
    np.testing.assert_allclose(found, logits_of_the_model(tmp_path), atol=1e-5)
    config, manifest = load_config(str(tmp_path / "run" / "config.yaml")), Dataset(str(tmp_path / "data")).manifest
    dense = sum(parameter.nbytes for parameter in scorer.mixture.parameters())
    told = cost_of(config, manifest).scorer_bytes("pq")
    # Sets that lie in one file share no codebook, so that what is told a set at a time is what is there.
    assert told == scorer.rows.nbytes + dense


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_a_scorers_logits_are_the_models(tmp_path, switches):
    scorer = Scorer(small_scorer(str(tmp_path), settings=switches))
    found = np.concatenate([logit_B for logit_B, _ in score_split(scorer, str(tmp_path / "data"), "test", 50)])
    expected = logits_of_the_model(tmp_path)
    assert expected.std() > 0.001
    np.testing.assert_allclose(found, expected, atol=1e-5)


OTHER_ROWS = [("model.embedding={sets: light, private_ids: 7}",), ("model.embedding={sets: hashed, hashed_rows: 9}",), ()]


def other_rows(folder, switches) -> str:
    return small_scorer(str(folder), settings=switches, rows="fp32" if switches else "pq")


@pytest.mark.parametrize("switches", OTHER_ROWS)
def test_what_other_formats_cannot_hold_is_refused_by_name(tmp_path, switches):
    """A graph of lookups and a delta are of one matrix of rows: a version with others is published whole."""
    folder = other_rows(tmp_path, switches)
    with pytest.raises(UserError, match=switches[0].split("sets: ")[1].split(",")[0] if switches else "pq"):
        add_format(folder, "triton", "dmoe", 1)
    with pytest.raises(Unlike):
        make_delta(folder, folder, "parent", str(tmp_path / "delta"))


@pytest.mark.slow
@pytest.mark.parametrize("switches", OTHER_ROWS)
def test_what_follows_any_tables_runs_in_onnx_runtime(tmp_path, switches):
    pytest.importorskip("onnxruntime")
    folder = other_rows(tmp_path, switches)
    assert add_format(folder, "onnx", "dmoe", 300).keys() == {ONNX_DENSE}
    served, reference = Scorer(folder), Scorer(folder, engine="torch")
    rows = draw(reference, 600, np.random.default_rng(0))
    np.testing.assert_allclose(served.logits(*rows), reference.logits(*rows), atol=1e-5)
    assert served.engine == "onnx"


def test_ids_that_come_and_go_have_no_private_and_no_hashed_rows():
    for sets in ("light", "hashed"):
        with pytest.raises(UserError, match=f"sets: {sets}"):
            check(parse_config(f"model: {{embedding: {{sets: {sets}}}}}", "test"), "run")
