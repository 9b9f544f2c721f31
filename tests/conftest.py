"""What holds for all tests."""

import hypothesis
import pytest

# The same cases on every machine: a change lands or not by what it does, not by what was drawn. To search further, run pytest with
# --hypothesis-profile=default.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and lose much to them where other work wants the cores."""
    import torch

    torch.set_num_threads(1)
