"""What the tables of light multi-embeddings look up, made of a batch's ids before it reaches the model: TorchRec distributes what a batch
holds, and looks ahead at it.

Shapes: B rows, F features, V ids of a batch.
"""

from collections.abc import Sequence

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.model.own_hash import hashed_rows
from dmoe.model.tables import hash_key, private_key


class PrivateIds:
    """Adds a key for each feature that has the ids below a bound alone: ids are sorted by count, so those are the most frequent ones.

    Args:
        features: names, in the model's order.
        bounds: of each feature, ids that have private rows.

    Example:
        >>> ids = KeyedJaggedTensor.from_lengths_sync(["user"], torch.tensor([1, 7, 0]), torch.tensor([2, 1], dtype=torch.int32))
        >>> found = PrivateIds(["user"], [2])(ids)
        >>> found.keys(), found.values().tolist(), found.lengths().tolist()
        (['user', '@private user'], [1, 7, 0, 1, 0], [2, 1, 1, 1])
    """

    def __init__(self, features: Sequence[str], bounds: Sequence[int]) -> None:
        self.keys = [*features, *(private_key(name) for name in features)]
        self.bounds = list(bounds)

    def __call__(self, ids: KeyedJaggedTensor) -> KeyedJaggedTensor:
        """What the model's tables look up; `ids` itself where it has been made already."""
        if len(ids.keys()) == len(self.keys):
            return ids
        values_V, lengths = ids.values(), ids.lengths()
        rows_F = lengths.view(len(self.bounds), -1).sum(1)
        bound_V = torch.tensor(self.bounds, device=values_V.device).repeat_interleave(rows_F, output_size=len(values_V))
        kept_V = values_V < bound_V
        before = torch.nn.functional.pad(kept_V.cumsum(0), (1, 0))
        ends = lengths.cumsum(0)
        private = before[ends] - before[ends - lengths]
        return KeyedJaggedTensor(
            keys=self.keys,
            values=torch.cat([values_V, values_V[kept_V]]),
            lengths=torch.cat([lengths, private.to(lengths.dtype)]),
            stride=ids.stride(),
        )


class HashedIds:
    """Gives every expert the rows that its own hash makes of the ids; of a feature with no more ids than rows, the ids as they are.

    Args:
        features: names, in the model's order.
        cardinalities: ids of each feature.
        rows: of each feature's table.
        experts: M.
    """

    def __init__(self, features: Sequence[str], cardinalities: Sequence[int], rows: Sequence[int], experts: int) -> None:
        self.keys = [hash_key(name, expert) for expert in range(experts) for name in features]
        self.rows = [count if count < ids else 0 for ids, count in zip(cardinalities, rows, strict=True)]
        self.experts = experts

    def __call__(self, ids: KeyedJaggedTensor) -> KeyedJaggedTensor:
        """What the model's tables look up; `ids` itself where it has been made already."""
        if ids.keys() == self.keys:
            return ids
        values_V, lengths = ids.values(), ids.lengths()
        of_F = lengths.view(len(self.rows), -1).sum(1)
        rows_V = torch.tensor(self.rows, device=values_V.device).repeat_interleave(of_F, output_size=len(values_V))
        made = [hashed_rows(values_V, expert, rows_V.clamp(min=1)).where(rows_V > 0, values_V) for expert in range(self.experts)]
        return KeyedJaggedTensor(self.keys, torch.cat(made), lengths=lengths.repeat(self.experts), stride=ids.stride())
