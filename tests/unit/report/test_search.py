"""The budgeted search: what it draws, whom it keeps, and that it reads no test split. Training is stood in for."""

import json
from pathlib import Path

import pytest

from dmoe.config.config import load_config
from dmoe.errors import UserError
from dmoe.report.ladder import search as module
from dmoe.report.ladder.search import load_search, run_search
from dmoe.report.ladder.spec import load_spec, resolve

LADDER = """
base: base.yaml
variants:
  plain: {set: {correlation: {alpha: 0.0}}}
  dec: {set: {correlation: {alpha: 0.01}}}
  other: {}
rungs: [plain, dec]
controls: [{variant: dec, against: plain, question: "Does it?"}, {variant: other, against: plain, question: "And this?"}]
"""
SEARCH = """
ladder: ladder.yaml
variants: {plain: {without: [correlation.alpha]}, dec: {}}
space:
  correlation.alpha: {low: 0.001, high: 1.0, log: true}
  optimizer.dense.lr: [0.001, 0.002, 0.004]
trials: 9
rounds: [{seeds: 1, epochs: 1}, {seeds: 2, epochs: 3}]
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "base.yaml").write_text("model: {embedding: {dim: 8}, experts: [mlp, cin]}\ndata: {validation_split: held}\n")
    (tmp_path / "ladder.yaml").write_text(LADDER)
    (tmp_path / "search.yaml").write_text(SEARCH)
    return tmp_path


def stand_in(trained: list[str]):
    """Writes metrics of a recipe whose AUC is best at a rate of .004 and an alpha of .1, and notes what it was asked for."""

    def train_all(jobs, *_):
        for job in jobs:
            config = load_config(job.config)
            assert (config.data.test_split, config.train.seed) == ("held", job.seed)
            auc = 0.7 + 10 * config.optimizer.dense.lr - 0.1 * abs(config.correlation.alpha - 0.1)
            Path(job.run).mkdir(parents=True)
            figures = {"auc": auc, "cec_matrix": [[0.0]], "cka_matrix": [[1.0]], "dead_dims": [0], "expert_variance": [1.0]}
            figures |= {"expert_auc": [auc], "gate_mass": [1.0], "effective_experts": 1.0}
            Path(job.run, "metrics.json").write_text(json.dumps(figures))
            trained.append(f"{job.variant} {job.seed} {config.train.epochs}")
        return {}

    return train_all


def test_every_variant_has_the_same_budget_and_the_best_of_each_becomes_a_ladder(folder, monkeypatch):
    trained: list[str] = []
    monkeypatch.setattr(module, "train_all", stand_in(trained))
    assert run_search(str(folder / "search.yaml"), str(folder / "out"), ["train.batch_size=77"], 1, 1, lambda _: None) == 0
    for variant in ("plain", "dec"):
        mine = [one for one in trained if one.startswith(f"{variant}, ")]
        assert sum(one.endswith(" 1000 1") for one in mine) == 9
        assert sorted(one[-6:] for one in mine if one.endswith(" 3")) == ["1000 3"] * 3 + ["1001 3"] * 3
    told = json.loads((folder / "out/search.json").read_text())
    spec = load_search(str(folder / "search.yaml"))
    best = str(folder / "out/best.yaml")
    ladder = load_spec(best)
    assert (ladder.rungs, [one.question for one in ladder.controls]) == (["plain", "dec"], ["Does it?"])
    for variant, own in (("plain", 0.0), ("dec", 0.01)):
        rows = [row for row in told["trials"] if (row["variant"], row["round"]) == (variant, 1)]
        recipes = [{"correlation.alpha": own, "optimizer.dense.lr": 0.001} | spec.candidate(variant, trial) for trial in range(9)]
        worth = [0.7 + 10 * one["optimizer.dense.lr"] - 0.1 * abs(one["correlation.alpha"] - 0.1) for one in recipes]
        assert [row["auc"] for row in rows] == pytest.approx(worth)
        assert told["best"][variant] == max(range(9), key=lambda trial: (worth[trial], -trial))
        config = resolve(ladder, best, variant, 0, [], "r")
        found = {"correlation.alpha": config.correlation.alpha, "optimizer.dense.lr": config.optimizer.dense.lr}
        assert found == recipes[told["best"][variant]]
        assert config.data.test_split == "test"


def test_trials_are_a_function_of_the_file_and_share_their_values(folder):
    spec = load_search(str(folder / "search.yaml"))
    for trial in range(1, 9):
        plain, dec = (spec.candidate(name, trial) for name in ("plain", "dec"))
        assert set(plain) == {"optimizer.dense.lr"}
        assert dec | plain == dec
        assert 0.001 <= dec["correlation.alpha"] <= 1
    assert len({spec.candidate("dec", trial)["correlation.alpha"] for trial in range(1, 9)}) == 8
    assert spec.candidate("dec", 0) == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plain: {without", "plan: {without", "no variant 'plan'"),
        ("plain: {without", "plan: {without", ", did you mean 'plain'?"),
        ("[correlation.alpha]", "[correlation.alpa]", "variants.plain.without"),
        ("low: 0.001", "low: 2", "space.correlation.alpha"),
        ("optimizer.dense.lr", "optimizer.dense.rate", "optimizer.dense.rate"),
        ("trials: 9", "trial: 9", "trial: unknown key, did you mean 'trials'?"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(folder, monkeypatch, old, new, message):
    monkeypatch.setattr(module, "train_all", None)
    (folder / "search.yaml").write_text(SEARCH.replace(old, new))
    with pytest.raises(UserError) as error:
        run_search(str(folder / "search.yaml"), str(folder / "out"), [], 1, 1, lambda _: None)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
