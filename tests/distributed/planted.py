"""Faults that tests of `dmoe accept` plant in its ranks: each function breaks one thing, in the process that calls it.

A rank calls the one that the test names before it does anything else; nothing in dmoe knows of them.
"""

import os
import time
from typing import Any

import torch
import torch.distributed as dist

RANK_1 = os.environ.get("RANK") == "1"


class _LongerGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 1.05


def other_version() -> None:
    if RANK_1:
        torch.__version__ = "9.9.9"  # type: ignore[assignment]


def corrupted_exchange() -> None:
    exchange = dist.all_to_all_single

    def corrupted(output: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        done = exchange(output, *arguments, **named)
        if RANK_1 and len(output):
            output[0] += 1
        return done

    dist.all_to_all_single = corrupted


def slow_link() -> None:
    exchange = dist.all_to_all_single

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.5)
        return exchange(*arguments, **named)

    dist.all_to_all_single = slow


def wrong_expert() -> None:
    """In float32 alone, as a device's kernel would be."""
    from dmoe.model.experts.mlp import MLP

    forward = MLP.forward
    MLP.forward = lambda self, x: forward(self, x) * (1.01 if x.dtype == torch.float32 else 1)  # type: ignore[method-assign]


def wrong_gradient() -> None:
    from dmoe.model.experts.mlp import MLP

    forward = MLP.forward
    MLP.forward = lambda self, x: _LongerGradient.apply(forward(self, x)) if x.dtype == torch.float32 else forward(self, x)  # type: ignore[method-assign]


def gradient_of_one_rank() -> None:
    """The moments' gradient without the world size, as a bare all-reduce would leave it."""
    from dmoe.distributed import _Scatter, world_size

    backward = _Scatter.backward
    _Scatter.backward = staticmethod(lambda ctx, *grads: (backward(ctx, *grads)[0] / world_size() * 0.5, None, None))  # type: ignore[method-assign,assignment]


def metric_of_one_rank() -> None:
    from dmoe.metrics import ambiguity, auc

    for module in (auc, ambiguity):
        module.all_reduced = lambda state, group=None: [state.clone() * (1 + torch.arange(state.numel()).view_as(state))]


def wrong_kernel() -> None:
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen as Kernel

    forward = Kernel.forward
    Kernel.forward = lambda self, *arguments, **named: forward(self, *arguments, **named) * 1.001


def wrong_optimizer() -> None:
    from dmoe.train.optimizer.optimizers import DataParallelTables

    step = DataParallelTables._step
    DataParallelTables._step = lambda self, weight, grad, state, rate: step(self, weight, grad, state, rate * 1.01)  # type: ignore[method-assign]


def other_initial_weights() -> None:
    from dmoe.sharding.plan import initialize

    block = initialize.initial_block
    if RANK_1:
        initialize.initial_block = lambda seed, *arguments: block(seed + 1, *arguments)


def full_precision() -> None:
    """What is asked to travel in fewer bits travels in all of them."""
    from dmoe.train import session

    session.codecs_of = lambda config, device: None


def wrong_compiler() -> None:
    from dmoe.train import session

    def compile_wrong(mixture: Any, device: Any) -> None:
        with torch.no_grad():
            for parameter in mixture.parameters():
                parameter *= 1.1

    session.compile_dense = compile_wrong


def stale_reads() -> None:
    """Shards are read as they were when the model was opened, as from under a cache that was not written back."""
    from dmoe.checkpoint import save
    from dmoe.sharding.plan import local_shards as of

    read, first = of.local_shards, {}

    def stale(model: Any, tables: Any) -> Any:
        shards = read(model, tables)
        kept = first.setdefault(id(model), [shard.weight.clone() for shard in shards])
        return [of.LocalShard(s.table, s.row, s.column, old, s.states, s.parameter) for s, old in zip(shards, kept, strict=True)]

    save.local_shards = stale
    from dmoe.train import session

    opened = session.open_session

    def open_and_read(*arguments: Any) -> Any:
        one = opened(*arguments)
        stale(one.sharded, one.tables)
        return one

    from dmoe.testing import small_run

    small_run.open_session = open_and_read


def other_plan() -> None:
    """Shards lie otherwise than the plan that is kept says."""
    import copy

    from dmoe.train import session

    made = session.plan_from_json

    def moved(kept: Any, *arguments: Any) -> Any:
        other = copy.deepcopy(kept)
        for row in other["tables"].values():
            rows, columns = row["size"]
            shard = {"row": 0, "column": 0, "rows": rows, "columns": columns, "rank": 0}
            row |= {"sharding_type": "table_wise", "compute_kernel": "fused", "shards": [shard]}
        return made(other, *arguments)

    session.plan_from_json = moved


def leak() -> None:
    from dmoe.train import session

    opened = session.open_session

    def leaking(*arguments: Any) -> Any:
        one = opened(*arguments)
        one.leaked = torch.ones(350_000_000)  # type: ignore[attr-defined]
        return one

    session.open_session = leaking


def hidden_wait() -> None:
    from dmoe.model.losses import objective

    reduced = objective.all_reduce_sum
    objective.all_reduce_sum = lambda x: reduced(x) if x.sum().item() > -1 else x


def slow_steps() -> None:
    from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

    progress = TrainPipelineSparseDist.progress

    def slow(self: Any, batches: Any) -> Any:
        time.sleep(2)
        return progress(self, batches)

    TrainPipelineSparseDist.progress = slow


def forgetful_load() -> None:
    from dmoe.checkpoint import load

    load._load_dense = lambda *arguments: None


def deaf_to_signals() -> None:
    from dmoe.train.elastic.preemption import Together

    Together._ask = lambda *arguments: None  # type: ignore[method-assign]


def hanging_survivors() -> None:
    """Neither the failed collective nor the watch, which would end them later, ends the others."""
    from dmoe.train.elastic import exit_codes, watchdog

    exit_codes._end_lost = lambda *arguments: time.sleep(100_000)
    watchdog.begin = lambda *arguments: None


def nothing() -> None:
    """No fault."""


def hang_on_rank_1() -> None:
    if RANK_1:
        time.sleep(100_000)


def die_on_rank_1() -> None:
    if RANK_1:
        os._exit(7)


def raise_on_rank_1() -> int:
    if RANK_1:
        raise ValueError("broken here")
    dist.barrier()
    return 0


def sound() -> int:
    x = torch.ones(1)
    dist.all_reduce(x)
    return int(x)


def without_torchrec() -> None:
    """As a machine where only PyTorch is installed: importing TorchRec or FBGEMM fails."""
    import sys

    class Refuse:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.split(".")[0] in ("torchrec", "fbgemm_gpu"):
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    sys.meta_path.insert(0, Refuse())  # type: ignore[arg-type]


def loaded() -> bool:
    import sys

    return any(name.split(".")[0] in ("torchrec", "fbgemm_gpu") for name in sys.modules)
