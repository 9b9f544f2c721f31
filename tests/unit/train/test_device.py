"""What a GPU would see of training, on devices that are at hand: `meta`, which refuses every number that is asked of it, and stand-ins.

Shapes: B rows, F fields, K dims, M experts.
"""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dmoe.accept.waits import Waits
from dmoe.config import ModelConfig, TableOptimizerConfig
from dmoe.model.assemble import outline
from dmoe.model.correlation import CorrelationLoss
from dmoe.model.expert_losses import Agreement, Balance, Orthogonality, Supervision
from dmoe.model.initial_weights import initial_block
from dmoe.model.objective import Losses, Objective
from dmoe.sharding.plan import local_shards as shards
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import open_small, small_config
from dmoe.train import update_check
from dmoe.train.elastic.preemption import Together
from dmoe.train.log_window import Window
from dmoe.train.optimizers import DataParallelTables
from dmoe.train.update_check import TablesMoved

META = torch.device("meta")
SPECS = [("crossnet", {}), ("mlp", {"hidden": [16]}), ("cin", {"layer_maps": [4]}), ("finalmlp", {}), ("wukong", {}), ("masknet", {})]


@pytest.fixture
def autocast_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` has no autocast, which is no part of what is asked here."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)


@pytest.mark.usefixtures("autocast_on_meta")
@pytest.mark.parametrize("gate", ["softmax", "mmoe", "mean", "elementwise"])
@pytest.mark.parametrize("form", [{}, {"norm": "l2_debiased"}, {"estimator": "covariance"}, {"reduce": "gather"}], ids=str)
@pytest.mark.parametrize("within_class", [False, True])
def test_a_step_of_the_dense_part_asks_the_device_for_nothing(gate: str, form: dict[str, Any], within_class: bool):
    """Forward, every loss, backward, the window of figures: `.item()`, an index by a mask or a copy from the device raises on `meta`."""
    mixture = outline(ModelConfig(gate=gate, expert_dim=8), 6, 3, SPECS, [8] * len(SPECS), range(len(SPECS)))  # type: ignore[arg-type]
    mixture.controls.expert_logits = True
    terms = [Supervision(1.0), Agreement(), Balance(0.1, "load"), Balance(0.1, "cv2"), Orthogonality(0.1)]
    objective = Objective(CorrelationLoss(**form), 0.1, "hidden", 0.1, within_class=within_class, terms=terms)
    sets = [torch.empty(32, 6, 8, device=META, requires_grad=True) for _ in SPECS]
    label_B, weight_B = torch.empty(32, device=META), torch.empty(32, device=META)
    window = Window(0, META)
    with Waits() as waits:
        outputs = mixture(torch.empty(32, 3, device=META), sets)
        loss, losses = objective(outputs, sets, label_B, weight_B)
        loss.backward()
        window.add(losses)
    assert not waits.found
    assert all(parameter.grad is not None for parameter in mixture.parameters())


@pytest.mark.parametrize("kind", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_replicated_tables_step_without_asking_the_device(kind: str):
    with Waits() as waits:
        step(kind, torch.empty(9, 4, device=META), torch.empty(9, 4, device=META), 1)
    assert not waits.found


def test_a_replicated_table_steps_by_lazy_adam_as_numpy_does():
    weight, grads = np.random.default_rng(0).normal(size=(5, 4)), np.random.default_rng(1).normal(size=(3, 5, 4))
    grads[0, [1, 3]] = grads[1, [1, 2]] = grads[2, 1] = 0
    mine, state = torch.from_numpy(weight.copy()), {name: torch.zeros(5, 4, dtype=torch.float64) for name in ("exp_avg", "exp_avg_sq")}
    mean, square, expected = np.zeros((5, 4)), np.zeros((5, 4)), weight.copy()
    for number, grad in enumerate(grads, 1):
        step("adam", mine, torch.from_numpy(grad), number, state)
        for row in range(5):
            if grad[row].any():
                mean[row] = 0.9 * mean[row] + 0.1 * grad[row]
                square[row] = 0.999 * square[row] + 0.001 * grad[row] ** 2
                moved = mean[row] / (1 - 0.9**number) / (np.sqrt(square[row] / (1 - 0.999**number)) + 1e-8)
                expected[row] -= 0.01 * moved
    np.testing.assert_allclose(mine.numpy(), expected, rtol=1e-12)
    assert (mine.numpy()[1] == weight[1]).all()


def step(kind: str, weight: torch.Tensor, grad: torch.Tensor, number: int, state: dict[str, torch.Tensor] | None = None) -> None:
    tables = object.__new__(DataParallelTables)
    tables.config, tables.steps = TableOptimizerConfig(kind=kind), number
    one = torch.zeros_like(weight[:, 0] if kind == "rowwise_adagrad" else weight)
    tables._step(weight, grad, state or {name: one.clone() for name in ("sum", "exp_avg", "exp_avg_sq")}, 0.01)


def test_the_correlation_from_gathered_rows_leaves_padding_out():
    outputs = torch.randn(8, 3, 4, dtype=torch.float64)
    mask = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0], dtype=torch.float64)
    outputs[6:] = torch.nan
    whole, part = CorrelationLoss(reduce="gather")(outputs, mask), CorrelationLoss(reduce="gather")(outputs[:6])
    assert float(whole.loss) == pytest.approx(float(part.loss), rel=1e-12)


def test_the_counter_of_waits_finds_each_kind():
    x = torch.arange(4.0)
    for waiting in (lambda: x.sum().item(), lambda: x[x > 1], lambda: x.nonzero(), lambda: bool(x.any()), lambda: x.tolist(), x.unique):
        with Waits() as waits:
            waiting()
        assert sum(waits.found.values()), waiting
    with Waits() as waits:
        torch.where(x > 1, x, 0).cumsum(0)[torch.tensor([0, 1])]
    assert not waits.found


def test_a_windows_seconds_are_taken_once_the_device_is_done(monkeypatch: pytest.MonkeyPatch):
    """On a GPU the steps are only queued when a line is due; its time would be missing in the samples a second."""
    clock = [0.0]
    monkeypatch.setattr("dmoe.train.log_window.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: clock.__setitem__(0, clock[0] + 5))
    window = Window(0, torch.device("cpu"))
    clock[0] = 1.0
    assert window.seconds() == 1.0
    window.sums = SimpleNamespace(device=torch.device("cuda", 0))  # type: ignore[assignment]
    assert (window.seconds(), window.elapsed) == (5.0, 6.0)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import torch.distributed as dist

    folder = tmp_path_factory.mktemp("data")
    make_data_set(folder)
    from dmoe.distributed import start_alone, stop

    alone = not dist.is_initialized()
    start_alone()
    yield open_small(small_config(str(folder), "sharding.types=[table_wise]"))
    if alone:
        stop()


def test_the_cache_of_tables_in_the_hosts_memory_is_written_back_before_shards_are_read(session, monkeypatch):
    """With a kernel whose cache holds a newer row, as FBGEMM's under fused_uvm_caching does."""
    (kernel,) = shards.fused_modules(session.sharded)
    said: list[str] = []

    def flush() -> None:
        said.append("flush")
        kernel.split_embedding_weights()[0][0] = 7.0

    monkeypatch.setattr(kernel, "flush", flush)
    monkeypatch.setattr(kernel, "reset_cache_states", lambda: said.append("emptied"))
    found = [shard for shard in shards.local_shards(session.sharded, session.tables) if bool((shard.weight[0] == 7.0).all())]
    assert said == ["flush", "emptied"]
    assert len(found) == 1


def test_tables_are_checked_on_the_ranks_own_device(session, monkeypatch):
    """A rank without a table's shard has an empty parameter in its place, whose device need not be the rank's: NCCL beside gloo hangs."""
    devices = []
    monkeypatch.setattr(update_check, "all_reduce_sum", lambda x: devices.append(x.device) or torch.ones(x.shape))

    class FirstElsewhere(nn.Module):
        def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
            yield nn.Parameter(torch.empty(0, device="cpu"))

    monkeypatch.setattr(update_check, "local_shards", lambda *_: [])
    TablesMoved(FirstElsewhere(), session.tables, META).check()
    assert devices == [META]


def test_another_default_device_changes_neither_initial_weights_nor_flags(monkeypatch):
    sent = []
    monkeypatch.setattr("dmoe.train.elastic.preemption.world_size", lambda: 2)
    monkeypatch.setattr("dmoe.train.elastic.preemption.dist.all_reduce", lambda flags, *_, **__: sent.append(flags.device.type))
    expected = initial_block(0, "C1/0", 0, 5, 4, 1.0)
    with META:
        assert torch.equal(initial_block(0, "C1/0", 0, 5, 4, 1.0), expected)
        Together(SimpleNamespace(finished=0, begun=0, under_way=False)).exchange()  # type: ignore[arg-type]
    assert sent == ["cpu"]


def test_a_step_makes_nothing_on_the_default_device(session):
    """Under `meta` as the default device, whatever is made without naming one has no numbers, and the step fails or loses its loss."""
    reader = session.reader("train", shuffled=True)
    batches = list(reader.batches(64, 0, 1, max_steps=4))
    session.sharded.train()
    with META:
        for batch in batches:
            session.optimizers.zero_grad()
            loss, (losses, *_) = session.sharded(batch)
            loss.backward()
            session.optimizers.step()
    assert isinstance(losses, Losses)
    assert np.isfinite(float(losses.bce))
