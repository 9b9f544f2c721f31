"""One optimiser over three kinds of parameters: fused tables, data-parallel tables, and the dense part.

Sharded tables are stepped by FBGEMM inside the backward pass. Those that a plan made data-parallel are stepped here by the same
formulas, with the same learning rate and state names, so that the plan does not change the mathematics.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from dmoe.checkpoint.index import EMA
from dmoe.distributed import world_size
from dmoe.errors import UserError
from dmoe.model.tables import Table
from dmoe.sections import DenseOptimizerConfig, TableOptimizerConfig
from dmoe.sharding.plan.local_shards import LocalShard, fused_modules, local_shards
from dmoe.train.average import MovingAverage

TABLE_CLASSES = {
    "adagrad": torch.optim.Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
}
CLIPPY_FLOOR = 0.01
"""What a weight may change by whatever its size, so that one at 0 moves at all."""
DENSE_STATES = {"adam": {"step", "exp_avg", "exp_avg_sq"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}, "adagrad": {"step", "sum"}}
"""Names of a parameter's states, `step` a number and the others of the parameter's shape; plain SGD has none."""
DENSE_CLASSES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}


def attach_table_optimizer(ebc: nn.Module, tables: Sequence[Table], config: TableOptimizerConfig, device: torch.device) -> None:
    """Marks the tables, before sharding, to be stepped inside the backward pass.

    Raises:
        UserError: Adam on CPU, whose kernels have none.
    """
    if config.kind == "adam" and device.type == "cpu":
        raise UserError("optimizer.tables.kind: FBGEMM's CPU kernels have no adam; use adagrad, rowwise_adagrad or sgd, or train on a GPU")
    by_parameter = {f"embedding_bags.{table.module}.weight": table for table in tables}
    for name, parameter in ebc.named_parameters():
        # A dict for each call: apply_optimizer_in_backward changes the one that it is given.
        kwargs: dict[str, Any] = {"lr": _table_rate(config, by_parameter[name])}
        if config.kind != "sgd":
            kwargs["eps"] = config.eps
        if config.kind == "adam":
            kwargs["betas"] = config.betas
        apply_optimizer_in_backward(TABLE_CLASSES[config.kind], [parameter], kwargs)
        if config.kind == "adam":
            # The call builds torch.optim's Adam, which takes `betas`; the kernel gets the same dict at sharding and takes each by its name.
            kwargs["beta1"], kwargs["beta2"] = kwargs.pop("betas")


def _table_rate(config: TableOptimizerConfig, table: Table) -> float:
    """Row-wise Adagrad divides by the mean square over the stored columns; padding (10 stored as 12) must not make its steps longer."""
    if config.kind != "rowwise_adagrad":
        return config.lr
    (section,) = table.sections
    return config.lr * (section.dim / section.stored) ** 0.5


class Optimizers:
    """Steps everything; what TorchRec's pipeline takes for an optimiser.

    Args:
        model: sharded by DistributedModelParallel, with `attach_table_optimizer` called before.
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
        # One pass over the parameters in memory, where the default makes one an operation.
        self.dense = DENSE_CLASSES[dense_config.kind](self._parameters, fused=True, **kwargs)
        self.gradient_norm: Tensor | None = None
        self.average: MovingAverage | None = None
        self.set_factor(1.0)

    def set_factor(self, factor: float) -> None:
        """Multiplies every learning rate; to be called before the backward pass, in which the fused tables step."""
        self.factor = factor
        for module, rate in zip(self._fused, self._fused_rates, strict=True):
            module.set_learning_rate(rate * factor)
            # FBGEMM counts every lookup, an evaluation's too, and once it counts it takes no other number from `set_optimizer_step`
            # (1.8.0): Adam's bias correction would depend on validations, and fused tables part from data-parallel ones.
            module.iter_cpu.fill_(self.data_parallel.steps)
        self.data_parallel.factor = factor
        for group in self.dense.param_groups:
            group["lr"] = self._dense_config.lr * factor

    def zero_grad(self, set_to_none: bool = True) -> None:
        # DistributedDataParallel's gradients are views of what it sends; a single rank's are taken as the backward pass makes them.
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
        """A step whose length a tensor's weights bound (Clippy, Tang et al. 2023): they, not the gradient's norm, tell what is too far."""
        before = [parameter.clone() for parameter in self._parameters]
        self.dense.step()
        for parameter, old in zip(self._parameters, before, strict=True):
            step = parameter - old
            room = (old.abs() * share).add_(CLIPPY_FLOOR).div_(step.abs().clamp_(min=1e-30))
            parameter.copy_(old.add_(step, alpha=float(room.amin().clamp(max=1.0))) if room.numel() else old)

    def states_of(self, shard: LocalShard) -> dict[str, Tensor]:
        """A shard's optimiser state by its standard name, whoever steps it."""
        return self.data_parallel.states[shard.table.name] if shard.replicated else shard.states

    def set_steps(self, steps: int) -> None:
        """How often the tables were stepped before: Adam's bias correction counts from there."""
        self.data_parallel.steps = steps
        for module in self._fused:
            module.set_optimizer_step(steps)

    def dense_state(self) -> dict[str, Tensor]:
        """The dense optimiser's state, and the moving average, as `parameter/state` -> tensor."""
        state = self.dense.state
        kept = {
            f"{name}/{key}": value
            for name, parameter in zip(self._names, self._parameters, strict=True)
            for key, value in state.get(parameter, {}).items()
        }
        return kept | (self.average.state() if self.average else {})

    def load_dense_state(self, kept: dict[str, Tensor]) -> None:
        """Takes what `dense_state` gave; an average that this run does not make is left out.

        Raises:
            UserError: a state of another optimiser, or of another shape than its parameter.
        """
        kind = self._dense_config.kind
        for name, parameter in zip(self._names, self._parameters, strict=True):
            prefix = f"{name}/"
            mine = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
            mine.pop(EMA, None)
            # A parameter that no loss has reached yet has no state.
            if mine and mine.keys() != DENSE_STATES.get(kind, set()):
                states = ", ".join(sorted(mine))
                raise UserError(f"parameter '{name}' has the states {states}, which optimizer.dense.kind {kind} has not; was it another's?")
            for key, value in mine.items():
                if value.dtype != parameter.dtype or value.shape != (() if key == "step" else parameter.shape):
                    found = [f"{one.dtype} {list(one.shape)}" for one in (value, parameter)]
                    raise UserError(f"optimizer state '{name}/{key}' is {found[0]}, its parameter is {found[1]}")
            self.dense.state[parameter] = {key: value.to(parameter.device).clone() for key, value in mine.items()}
        if self.average:
            self.average.load(kept)


class DataParallelTables:
    """Steps the tables that the plan replicates, with FBGEMM's formulas; lazily, so that rows without gradient stay as they are.

    Attributes:
        states: table name -> state name -> tensor, with torch.optim's names: `sum`, or `exp_avg` and `exp_avg_sq`.
        steps: how often it stepped (Adam's bias correction).
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
            # By a mask and not by an index, whose size a device would have to be asked for.
            first, second = self.config.betas
            touched = (grad != 0).any(1, keepdim=True)
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            mean.copy_(torch.where(touched, first * mean + (1 - first) * grad, mean))
            square.copy_(torch.where(touched, second * square + (1 - second) * grad.square(), square))
            corrected = (square / (1 - second**self.steps)).sqrt() + eps
            weight.sub_(torch.where(touched, rate * mean / (1 - first**self.steps) / corrected, 0))
