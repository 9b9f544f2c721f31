"""Two scorers of one schema, for the tests of a server."""

from pathlib import Path

import pytest

from dmoe.testing.small_scorer import small_scorer


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one/scorer` and `two/scorer`, whose answers differ."""
    place = tmp_path_factory.mktemp("served")
    small_scorer(str(place / "one"))
    small_scorer(str(place / "two"), steps=5, seed=1)
    return place
