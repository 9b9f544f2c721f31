"""Models with switches on, trained for a few steps and exported: the scorer's logits are the model's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dmoe.config import load_config
from dmoe.data.dataset.dataset import Dataset
from dmoe.serve.score_dataset import score_split
from dmoe.serve.scorer import Scorer
from dmoe.testing.small_scorer import small_scorer
from dmoe.train.trainer import Trainer

SWITCHES = {
    "batch norm": ("model.expert_norm=batch",),
    "batch norm under a sparse gate": ("model.expert_norm=batch", "model.gate=dselect_k", "model.gate_experts=1", "model.gate_gamma=0.01"),
    "light": ("model.embedding.sets=light", "model.embedding.private_ids=5"),
    "light, of sums, separate": ("model.embedding.sets=light", "model.embedding.private_ids=30", "model.embedding.layout=separate"),
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


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_a_scorers_logits_are_the_models(tmp_path, switches):
    scorer = Scorer(small_scorer(str(tmp_path), settings=switches))
    found = np.concatenate([logit_B for logit_B, _ in score_split(scorer, str(tmp_path / "data"), "test", 50)])
    expected = logits_of_the_model(tmp_path)
    assert expected.std() > 0.001
    np.testing.assert_allclose(found, expected, atol=1e-5)
