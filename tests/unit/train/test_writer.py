"""A checkpoint is copied only where there is memory for the copy."""

from typing import Any

import pytest
import torch
from torch import nn

from dmoe.checkpoint import writer as module
from dmoe.checkpoint.save import File
from dmoe.checkpoint.writer import CheckpointWriter
from dmoe.config.sections import CheckpointConfig


class NoRoom(torch.Tensor):
    def to(self, *_: Any, **__: Any) -> "NoRoom":  # type: ignore[override]
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.fixture
def writer(tmp_path):
    nothing: Any = None
    return CheckpointWriter(str(tmp_path), nn.Module(), [], nn.Module(), nothing, CheckpointConfig())


def test_a_copy_that_fits_is_one_of_its_own(writer):
    tensor = torch.arange(4.0)
    (copied,) = writer._copy([File("x", {"t": tensor}, ())])
    tensor.zero_()
    assert copied.tensors["t"].tolist() == [0, 1, 2, 3]


def test_what_the_machine_has_no_room_for_is_written_without_a_copy(writer, monkeypatch):
    files = [File(name, {"t": torch.zeros(4)}, ()) for name in "ab"]
    monkeypatch.setattr(module, "free_bytes", lambda: 31.0)
    assert writer._copy(files) is None
    monkeypatch.setattr(module, "free_bytes", lambda: 32.0)
    assert len(writer._copy(files)) == 2
    # The other rank of this machine takes as much.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert writer._copy(files) is None


def test_a_limit_on_the_process_is_met_in_the_same_way(writer):
    assert writer._copy([File("x", {"t": torch.zeros(4).as_subclass(NoRoom)}, ())]) is None


def test_this_system_tells_what_is_free():
    assert 0 < module.free_bytes() < 1 << 50
