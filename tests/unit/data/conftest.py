import pytest

from tests.unit.data.every_schema import KINDS, Days, write_days


@pytest.fixture(scope="module", params=KINDS)
def days(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Days:
    """(schema, three days of a log); the first has dates in its files' names alone."""
    return write_days(request.param, tmp_path_factory.mktemp("days"))
