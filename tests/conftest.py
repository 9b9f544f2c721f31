"""What holds for all tests."""

import random
import signal
from collections.abc import Generator

import hypothesis
import numpy
import pytest

# The same cases on every machine: a change lands or not by what it does, not by what was drawn. To search further, run pytest with
# --hypothesis-profile=default. Nor does a busy machine fail a test whose cases take long to draw.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("fixed")

# A shell's background jobs ignore Ctrl-C, and so would all that the tests start, and interrupt, from there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and lose much to them where other work wants the cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test that draws without a seed of its own has the same numbers whichever tests ran before it."""
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """torchx's local scheduler takes SIGINT and SIGTERM of the process for its own and never gives them back: Ctrl-C failed a test then."""
    kept = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        return (yield)
    finally:
        for one, handler in kept.items():
            signal.signal(one, handler)
