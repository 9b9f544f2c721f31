"""The pools of gloo processes."""

from collections.abc import Callable, Iterator

import pytest

from dmoe.testing.pool import Pool
from dmoe.testing.small_data import make_data_set


@pytest.fixture(scope="session")
def ranks() -> Iterator[Callable[[int], Pool]]:
    """`ranks(2)` is a pool of two gloo ranks; one that a failure broke is replaced."""
    pools: dict[int, Pool] = {}

    def get(world_size: int) -> Pool:
        if world_size not in pools or not pools[world_size].alive:
            pools[world_size] = Pool(world_size)
        return pools[world_size]

    yield get
    for pool in pools.values():
        pool.close()


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small data set."""
    folder = tmp_path_factory.mktemp("data")
    make_data_set(folder)
    return str(folder)
