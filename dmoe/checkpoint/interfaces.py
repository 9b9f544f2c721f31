"""What checkpoints need from training."""

from typing import Protocol

from torch import Tensor

from dmoe.sharding.plan.local_shards import LocalShard


class OptimizerStates(Protocol):
    """The optimizers of the tables and of the dense part (`dmoe.train.optimizer.optimizers.Optimizers`)."""

    def states_of(self, shard: LocalShard) -> dict[str, Tensor]:
        """The state of the rows of a shard, by its standard name."""

    def set_steps(self, steps: int) -> None:
        """Sets the number of earlier steps of the tables."""

    def dense_state(self) -> dict[str, Tensor]:
        """The state of the dense optimizer: `parameter/state` -> tensor."""

    def load_dense_state(self, kept: dict[str, Tensor]) -> None:
        """Loads what `dense_state` returned."""
