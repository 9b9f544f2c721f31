"""Every example in a docstring of the library runs as printed; every public name has one."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import dmoe

ROOT = Path(__file__).resolve().parents[2]
WITH_EXAMPLES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in sorted((ROOT / "dmoe").rglob("*.py")) if ">>>" in file.read_text()
]
PLAIN_DATA = {"Config", "UserError", "metrics", "load_config", "Batch", "Callback", "Feature", "Plan", "__version__"}
"""Public names whose use another name's example shows."""


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_run_as_printed(module):
    result = doctest.testmod(importlib.import_module(module), extraglobs={"torch": torch})
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("name", sorted(set(dmoe.__all__) - PLAIN_DATA))
def test_a_public_name_has_an_example(name):
    assert ">>>" in getattr(dmoe, name).__doc__
