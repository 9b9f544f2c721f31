"""A scorer tells what it is: data, figures, sizes and config."""

import json
from pathlib import Path

import pytest

from dmoe.checkpoint.contents import Contents
from dmoe.cli.main import main
from dmoe.serve.export.card import FILE
from dmoe.serve.export.export import export
from dmoe.serve.export.format import read_scorer_file, write_scorer_file
from dmoe.testing.small_scorer import small_scorer
from dmoe.version import __version__


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    small_scorer(str(folder))
    return folder


def test_the_card_of_a_run_that_has_ended(place, tmp_path):
    (place / "run" / "metrics.json").write_text('{"rows": 99, "auc": 0.75, "logloss": null, "cec_matrix": [[1]]}')
    (place / "run" / "environment.json").write_text('{"versions": {"torch": "9.9"}}')
    about = export(str(place / "run"), str(tmp_path / "out"))
    card = read_scorer_file(str(tmp_path / "out")).card
    assert card == about.card
    assert card
    assert sum(card.rows.values()) == 1000
    assert card.figures == {"rows": 99.0, "auc": 0.75}
    assert card.config["model"]["expert_dim"] == 8
    assert card.versions == {"torch": "9.9", "exported by dmoe": __version__}
    kept = Contents(str(place / "run" / "checkpoints" / "step-000000010"))
    expected = sum(kept.rows(f"{feature.name}/{index}", 0, feature.cardinality).size for feature in about.features for index in range(2))
    assert card.table_parameters == expected
    text = (tmp_path / "out" / FILE).read_text()
    assert "| auc | 0.75000 |" in text
    assert f"{expected:,} numbers" in text


def test_another_step_than_the_best_has_no_figures_and_a_damaged_file_is_none(place, tmp_path):
    (place / "run" / "metrics.json").write_text('{"auc": 0.75}')
    card = export(str(place / "run"), str(tmp_path / "a"), step=10).card
    assert card
    assert card.figures == {}
    (place / "run" / "metrics.json").write_text("no")
    assert main(["export", "--run", str(place / "run"), "--output", str(tmp_path / "b"), "--check", "0"]) == 0
    assert json.loads((tmp_path / "b" / "scorer.json").read_text())["card"]["figures"] == {}


def test_a_scorer_without_a_card_is_written_as_before(place, tmp_path):
    about = read_scorer_file(str(place / "scorer"))
    write_scorer_file(str(tmp_path), about.model_copy(update={"card": None}))
    assert not {"card", "portable"} & json.loads((tmp_path / "scorer.json").read_text()).keys()
    assert read_scorer_file(str(tmp_path)).card is None
