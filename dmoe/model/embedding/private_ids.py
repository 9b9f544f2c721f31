"""Converts the ids of a batch for light and hashed multi-embeddings.

This happens before the batch reaches the model, since TorchRec distributes the ids of a batch ahead of the forward pass.

Shapes: B rows, F features, V ids of a batch.
"""

from collections.abc import Sequence

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.model.embedding.own_hash import hashed_rows
from dmoe.model.embedding.tables import hash_key, private_key


class PrivateIds:
    """Adds a key for each feature, with only the ids below a bound. Ids are sorted by count, so these are the most frequent ids.

    Args:
        features: names, in the model's order.
        bounds: for each feature, the number of ids that have private rows.

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
        """Converts the ids of a batch. Returns `ids` unchanged if they are already converted."""
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
    """Maps ids to rows by a different hash for each expert. The ids of a feature with no more ids than rows are not changed.

    Args:
        features: names, in the model's order.
        cardinalities: number of ids of each feature.
        rows: number of rows of each feature's table.
        experts: number of experts.
    """

    def __init__(self, features: Sequence[str], cardinalities: Sequence[int], rows: Sequence[int], experts: int) -> None:
        self.keys = [hash_key(name, expert) for expert in range(experts) for name in features]
        self.rows = [count if count < ids else 0 for ids, count in zip(cardinalities, rows, strict=True)]
        self.experts = experts

    def __call__(self, ids: KeyedJaggedTensor) -> KeyedJaggedTensor:
        """Converts the ids of a batch. Returns `ids` unchanged if they are already converted."""
        if ids.keys() == self.keys:
            return ids
        values_V, lengths = ids.values(), ids.lengths()
        of_F = lengths.view(len(self.rows), -1).sum(1)
        rows_V = torch.tensor(self.rows, device=values_V.device).repeat_interleave(of_F, output_size=len(values_V))
        made = [hashed_rows(values_V, expert, rows_V.clamp(min=1)).where(rows_V > 0, values_V) for expert in range(self.experts)]
        return KeyedJaggedTensor(self.keys, torch.cat(made), lengths=lengths.repeat(self.experts), stride=ids.stride())
