"""One optimizer for three kinds of parameters: fused tables, data-parallel tables, and the dense part.

FBGEMM updates sharded tables inside the backward pass. Data-parallel tables are updated here with the same formulas, learning rates and
state names, so that the plan does not change the mathematics.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from dmoe.checkpoint.index import EMA
from dmoe.config.sections import DenseOptimizerConfig, TableOptimizerConfig
from dmoe.distributed import world_size
from dmoe.errors import UserError
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.local_shards import LocalShard, fused_modules, local_shards
from dmoe.sharding.planner.cost.lookup import OPTIMIZERS
from dmoe.train.optimizer.average import MovingAverage

CLIPPY_FLOOR = 0.01
"""A weight may always change by this much, so that weights at 0 can change at all."""
DENSE_STATES = {"adam": {"step", "exp_avg", "exp_avg_sq"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}, "adagrad": {"step", "sum"}}
"""Names of the states of a parameter. `step` is a number; the others have the shape of the parameter. Plain SGD has none."""
DENSE_CLASSES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}


def attach_table_optimizer(ebc: nn.Module, tables: Sequence[Table], config: TableOptimizerConfig, device: torch.device) -> None:
    """Attaches the optimizer to the tables before they are sharded, so that they are updated inside the backward pass.

    Raises:
        UserError: Adam on a CPU, since FBGEMM's CPU kernels have no Adam.
    """
    if config.kind == "adam" and device.type == "cpu":
        raise UserError("optimizer.tables.kind: FBGEMM's CPU kernels have no adam; use adagrad, rowwise_adagrad or sgd, or train on a GPU")
    by_parameter = {f"embedding_bags.{table.module}.weight": table for table in tables}
    for name, parameter in ebc.named_parameters():
        # A new dict for each call, since apply_optimizer_in_backward changes its argument.
        kwargs: dict[str, Any] = {"lr": _table_rate(config, by_parameter[name])}
        if config.kind != "sgd":
            kwargs["eps"] = config.eps
        if config.kind == "adam":
            kwargs["betas"] = config.betas
        apply_optimizer_in_backward(OPTIMIZERS[config.kind], [parameter], kwargs)
        if config.kind == "adam":
            # The call above takes `betas`, for torch.optim's Adam. At sharding, the kernel gets the same dict, but needs beta1 and beta2.
            kwargs["beta1"], kwargs["beta2"] = kwargs.pop("betas")


def _table_rate(config: TableOptimizerConfig, table: Table) -> float:
    """The learning rate of a table. Row-wise Adagrad divides by the mean square over the stored columns; the factor corrects for padded
    columns (dim 10 is stored as 12)."""
    if config.kind != "rowwise_adagrad":
        return config.lr
    (section,) = table.sections
    return config.lr * (section.dim / section.stored) ** 0.5


class Optimizers:
    """Updates all parameters. Has the methods of an optimizer that TorchRec's pipeline calls.

    Args:
        model: sharded by DistributedModelParallel after a call of `attach_table_optimizer`.
        dense: the dense parameters by name.

    Attributes:
        average: of the dense parameters; None before `begin_average`.
    """

    def __init__(
        self,
        model: nn.Module,
        tables: Sequence[Table],
        dense: dict[str, nn.Parameter],
        table_config: TableOptimizerConfig,
        dense_config: DenseOptimizerConfig,
    ) -> None:
        self._table_config, self._dense_config = table_config, dense_config
        self._fused = fused_modules(model)
        self._fused_rates = [float(module.get_learning_rate()) for module in self._fused]
        self.data_parallel = DataParallelTables(model, tables, table_config)
        self._names = list(dense)
        self._parameters = list(dense.values())
        kwargs: dict[str, Any] = {"lr": dense_config.lr, "weight_decay": dense_config.weight_decay}
        if dense_config.kind != "sgd":
            kwargs["eps"] = dense_config.eps
        if dense_config.kind in ("adam", "adamw"):
            kwargs["betas"] = dense_config.betas
        # fused: one pass over the parameters in memory instead of one for each operation.
        self.dense = DENSE_CLASSES[dense_config.kind](self._parameters, fused=True, **kwargs)
        self.gradient_norm: Tensor | None = None
        self.average: MovingAverage | None = None
        self.set_factor(1.0)

    def set_factor(self, factor: float) -> None:
        """Multiplies every learning rate by a factor. Call it before the backward pass, which updates the fused tables."""
        self.factor = factor
        for module, rate in zip(self._fused, self._fused_rates, strict=True):
            module.set_learning_rate(rate * factor)
            # FBGEMM (1.8.0) counts every lookup, also those of evaluations, and then ignores `set_optimizer_step`. Adam's bias correction
            # would depend on validations, and differ between fused and data-parallel tables.
            module.iter_cpu.fill_(self.data_parallel.steps)
        self.data_parallel.factor = factor
        for group in self.dense.param_groups:
            group["lr"] = self._dense_config.lr * factor

    def zero_grad(self, set_to_none: bool = True) -> None:
        # The gradients of DistributedDataParallel are views of its buckets and must stay. A single rank can drop them.
        self.dense.zero_grad(set_to_none=world_size() == 1)
        self.data_parallel.zero_grad()

    def step(self) -> None:
        if self._dense_config.clip_norm is not None:
            self.gradient_norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._dense_config.clip_norm)
        if self._dense_config.relative_clip is None:
            self.dense.step()
        else:
            self._clipped_step(self._dense_config.relative_clip)
        self.data_parallel.step()
        if self.average:
            self.average.step(self.data_parallel.steps)

    def begin_average(self, decay: float) -> None:
        """Averages the dense parameters from here on."""
        self.average = MovingAverage(dict(zip(self._names, self._parameters, strict=True)), decay)

    def averaged(self) -> AbstractContextManager[None]:
        """Within it the dense parameters are their moving average, where there is one."""
        return self.average.in_place() if self.average else nullcontext()

    @torch.no_grad()
    def _clipped_step(self, share: float) -> None:
        """A step whose length is limited relative to the weights of each tensor (Clippy, Tang et al. 2023)."""
        before = [parameter.clone() for parameter in self._parameters]
        self.dense.step()
        for parameter, old in zip(self._parameters, before, strict=True):
            step = parameter - old
            room = (old.abs() * share).add_(CLIPPY_FLOOR).div_(step.abs().clamp_(min=1e-30))
            parameter.copy_(old.add_(step, alpha=float(room.amin().clamp(max=1.0))) if room.numel() else old)

    def states_of(self, shard: LocalShard) -> dict[str, Tensor]:
        """The optimizer state of a shard by its standard names, for fused and for data-parallel tables."""
        return self.data_parallel.states[shard.table.name] if shard.replicated else shard.states

    def set_steps(self, steps: int) -> None:
        """Sets the number of earlier steps of the tables, on which Adam's bias correction depends."""
        self.data_parallel.steps = steps
        for module in self._fused:
            module.set_optimizer_step(steps)

    def dense_state(self) -> dict[str, Tensor]:
        """The state of the dense optimizer, and the moving average, as `parameter/state` -> tensor."""
        state = self.dense.state
        kept = {
            f"{name}/{key}": value
            for name, parameter in zip(self._names, self._parameters, strict=True)
            for key, value in state.get(parameter, {}).items()
        }
        return kept | (self.average.state() if self.average else {})

    def load_dense_state(self, kept: dict[str, Tensor]) -> None:
        """Loads a result of `dense_state`. An average that this run does not keep is left out.

        Raises:
            UserError: a state belongs to another optimizer, or has another shape than its parameter.
        """
        kind = self._dense_config.kind
        for name, parameter in zip(self._names, self._parameters, strict=True):
            prefix = f"{name}/"
            mine = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
            mine.pop(EMA, None)
            # A parameter without a gradient so far has no state.
            if mine and mine.keys() != DENSE_STATES.get(kind, set()):
                states = ", ".join(sorted(mine))
                raise UserError(f"parameter '{name}' has the states {states}, which do not belong to optimizer.dense.kind {kind}")
            for key, value in mine.items():
                if value.dtype != parameter.dtype or value.shape != (() if key == "step" else parameter.shape):
                    found = [f"{one.dtype} {list(one.shape)}" for one in (value, parameter)]
                    raise UserError(f"optimizer state '{name}/{key}' is {found[0]}, its parameter is {found[1]}")
            self.dense.state[parameter] = {key: value.to(parameter.device).clone() for key, value in mine.items()}
        if self.average:
            self.average.load(kept)


class DataParallelTables:
    """Updates data-parallel tables with FBGEMM's formulas. Rows without a gradient do not change.

    Attributes:
        states: table name -> state name -> tensor, with the names of torch.optim: `sum`, or `exp_avg` and `exp_avg_sq`.
        steps: number of steps, for Adam's bias correction.
    """

    def __init__(self, model: nn.Module, tables: Sequence[Table], config: TableOptimizerConfig) -> None:
        self.config, self.factor, self.steps = config, 1.0, 0
        self.shards = [shard for shard in local_shards(model, tables) if shard.replicated]
        self.states: dict[str, dict[str, Tensor]] = {}
        for shard in self.shards:
            weight = shard.weight
            names = {"adagrad": ["sum"], "rowwise_adagrad": ["sum"], "sgd": [], "adam": ["exp_avg", "exp_avg_sq"]}[config.kind]
            one_a_row = config.kind == "rowwise_adagrad"
            self.states[shard.table.name] = {name: torch.zeros_like(weight[:, 0] if one_a_row else weight) for name in names}

    def zero_grad(self) -> None:
        for shard in self.shards:
            if shard.parameter is not None and shard.parameter[0].grad is not None:
                shard.parameter[0].grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        for shard in self.shards:
            assert shard.parameter is not None
            flat, start = shard.parameter
            if flat.grad is None:
                continue
            weight = shard.weight
            grad = flat.grad.view(-1)[start : start + weight.numel()].view_as(weight)
            self._step(weight, grad, self.states[shard.table.name], _table_rate(self.config, shard.table) * self.factor)

    def _step(self, weight: Tensor, grad: Tensor, state: dict[str, Tensor], rate: float) -> None:
        eps = self.config.eps
        if self.config.kind == "sgd":
            weight.add_(grad, alpha=-rate)
        elif self.config.kind == "adagrad":
            state["sum"].addcmul_(grad, grad)
            weight.addcdiv_(grad, state["sum"].sqrt().add_(eps), value=-rate)
        elif self.config.kind == "rowwise_adagrad":
            state["sum"].add_(grad.square().mean(1))
            weight.addcdiv_(grad, state["sum"].sqrt().add_(eps)[:, None].expand_as(grad), value=-rate)
        else:
            # A mask, not an index: the size of an index would need a synchronization with the device.
            first, second = self.config.betas
            touched = (grad != 0).any(1, keepdim=True)
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            mean.copy_(torch.where(touched, first * mean + (1 - first) * grad, mean))
            square.copy_(torch.where(touched, second * square + (1 - second) * grad.square(), square))
            corrected = (square / (1 - second**self.steps)).sqrt() + eps
            weight.sub_(torch.where(touched, rate * mean / (1 - first**self.steps) / corrected, 0))
