"""What a GPU would see of training, on devices that are at hand: `meta`, which refuses every number that is asked of it, and stand-ins.

Shapes: B rows, F fields, K dims, M experts.
"""

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dmoe.accept.stages.waits import Waits, count
from dmoe.config.model_sections import ModelConfig
from dmoe.config.sections import TableOptimizerConfig
from dmoe.data.dataset.manifest import CategoricalFeature
from dmoe.model.assemble import outline
from dmoe.model.embedding.embedding import MultiEmbedding
from dmoe.model.embedding.initial_weights import initial_block
from dmoe.model.embedding.tables import make_tables
from dmoe.model.losses.correlation import CorrelationLoss
from dmoe.model.losses.expert_losses import Agreement, Balance, Orthogonality, Supervision
from dmoe.model.losses.objective import Losses, Objective
from dmoe.sharding.plan import local_shards as shards
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import open_small, small_config
from dmoe.train.elastic.preemption import Together
from dmoe.train.optimizer import update_check
from dmoe.train.optimizer.optimizers import DataParallelTables, attach_table_optimizer
from dmoe.train.optimizer.update_check import TablesMoved
from dmoe.train.output.log_window import Window

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


@pytest.mark.parametrize("kind", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_the_kernel_of_a_gpu_takes_what_the_table_optimizer_leaves_for_it(kind: str):
    """FBGEMM's constructor against what TorchRec will give it: on a CPU, Adam never gets so far."""
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
    from torchrec.distributed.utils import merge_fused_params

    layout = "separate" if kind == "rowwise_adagrad" else "wide"
    tables = make_tables([CategoricalFeature(name="C1", kind="token", cardinality=9, missing_share=0, rare_share=0)], [8, 8], layout)
    ebc = MultiEmbedding(tables, META).ebc
    config = TableOptimizerConfig(kind=kind, lr=0.25, eps=1e-5, betas=(0.8, 0.95))
    attach_table_optimizer(ebc, tables, config, torch.device("cuda", 0))
    takes = inspect.signature(SplitTableBatchedEmbeddingBagsCodegen).parameters
    for parameter in ebc.parameters():
        (kwargs,) = parameter._optimizer_kwargs
        given = merge_fused_params(None, dict(kwargs))
        assert not given.keys() - takes.keys()
        assert given["learning_rate"] == 0.25
        assert kind == "sgd" or given["eps"] == 1e-5
        assert kind != "adam" or (given["beta1"], given["beta2"]) == (0.8, 0.95)


def test_adam_counts_the_steps_of_training_alone(session):
    """FBGEMM counts every lookup of its kernel, an evaluation's too; here a kernel that has counted to 9, of 3 steps."""
    optimizers = session.optimizers
    (kernel,) = shards.fused_modules(session.sharded)
    steps = optimizers.data_parallel.steps
    try:
        kernel.iter_cpu.fill_(9)
        optimizers.data_parallel.steps = 3
        optimizers.set_factor(1.0)
        assert int(kernel.iter_cpu) == 3
    finally:
        optimizers.data_parallel.steps = steps


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


def test_what_pytorch_warns_of_on_a_gpu_is_told_by_dmoes_own_line(monkeypatch: pytest.MonkeyPatch):
    """A stand-in for a GPU's warning, given where a loss calls the correlation."""
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    class Warned(nn.Module):
        def forward(self, *_: Any) -> Any:
            warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)
            warnings.warn("something else", UserWarning, stacklevel=1)
            raise KeyError

    def step() -> None:
        objective = Objective(Warned(), 0.1, "hidden", 0.0)  # type: ignore[arg-type]
        outputs = SimpleNamespace(logit_B=torch.zeros(2), hidden_BMD=torch.zeros(2, 2, 2))
        with contextlib.suppress(KeyError):
            objective(outputs, [], torch.zeros(2), torch.ones(2))
        warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)

    found = count(step, on_gpu=True)
    assert modes == ["warn", "default"]
    assert {place.partition(":")[0]: times for place, times in found.items()} == {"libraries": 1, "model/losses/objective.py": 1}


def test_a_windows_seconds_are_taken_once_the_device_is_done(monkeypatch: pytest.MonkeyPatch):
    """On a GPU the steps are only queued when a line is due; its time would be missing in the samples a second."""
    clock = [0.0]
    monkeypatch.setattr("dmoe.train.output.log_window.time.perf_counter", lambda: clock[0])
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
