"""What holds for all tests."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and lose much to them where other work wants the cores."""
    import torch

    torch.set_num_threads(1)
