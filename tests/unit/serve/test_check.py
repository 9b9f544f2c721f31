"""The export check compares a scorer with the predictions of its own step; end to end in tests/endtoend/test_report_cli.py."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from dmoe.serve.export.check import against_run
from dmoe.testing.small_data import make_data_set
from tests.unit.serve.test_scorer import make


@pytest.mark.parametrize(("kept", "compared"), [({"step": np.array(4711)}, False), ({}, True), ({"step": np.array(1)}, True)])
def test_predictions_of_another_step_are_not_compared_and_those_of_an_unknown_one_are(tmp_path: Path, kept: dict, compared: bool):
    """The data set has other rows than the predictions, which is only said where they are looked at."""
    run, scorer = tmp_path / "run", tmp_path / "scorer"
    run.mkdir()
    scorer.mkdir()
    make(scorer)
    make_data_set(tmp_path / "d")
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"path": str(tmp_path / "d")}}))
    np.savez(run / "predictions.npz", logit=np.zeros(3, np.float32), label=np.zeros(3, bool), order=np.array("other"), **kept)
    said = against_run(str(run), str(scorer), 100)
    assert said.startswith("not checked: ")
    assert ("4,711" in said) == (not compared)
    assert ("other test rows" in said) == compared
