"""Finds the likely reason of an overflow or a diverged run: a too large setting, a too large number in the data, or neither.

Shapes: B rows of a global batch, D dense features.
"""

import torch

from dmoe.checkpoint.progress import Progress
from dmoe.config.config import Config
from dmoe.distributed import broadcast_object, rank
from dmoe.errors import UserError
from dmoe.train.session import Session

LARGE_NUMBER = 1e9
"""Numbers of the data above this are too large: the fourth power overflows float32, and cross layers multiply an input that often."""
LARGE_SETTING = 1e3
"""Settings (weights, rates, deviations) above this are too large. Useful values are about 1 or smaller."""
SETTINGS = (
    "correlation.alpha",
    "optimizer.embedding_l2",
    "optimizer.dense.weight_decay",
    "model.embedding.init_std",
    "optimizer.dense.lr",
    "optimizer.tables.lr",
)
MOST_BATCHES = 64


def likely_reason(session: Session, progress: Progress, since: int, last: int) -> str:
    """What is too large, and what to do about it; empty if nothing is found. Then the learning rates are the likely reason.

    Every rank must call it. Rank 0 reads the batches of the steps (since, last] again.

    Args:
        progress: after the last step.
    """
    found = None
    if rank() == 0:
        try:
            found = _large_setting(session.config) or _large_number(session, progress, max(since, last - MOST_BATCHES), last)
        except UserError:
            # If a shard cannot be read any more, training reports it.
            found = ""
    return str(broadcast_object(found))


def _large_setting(config: Config) -> str:
    for key in SETTINGS:
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        if float(value) > LARGE_SETTING:  # type: ignore[arg-type]
            return f"{key}={value:g} is far too large for training; lower it"
    return ""


def _large_number(session: Session, progress: Progress, since: int, last: int) -> str:
    size = session.config.train.batch_size
    reader = session.reader(session.config.data.train_split, shuffled=True)
    # The epoch of the last batch, and its number within the epoch. Batches of earlier epochs are not searched.
    epoch, newest = (progress.epoch, (progress.row - 1) // size) if progress.row else (progress.epoch - 1, reader.steps(size) - 1)
    first = max(newest - (progress.step - since - 1), 0)
    steps = newest - (progress.step - last) + 1 - first
    for batch in reader.batches(size, 0, 1, epoch, first * size, max(steps, 0)):
        names = [f"dense feature {name}" for name in session.blueprint.dense]
        names.append(f"the weight of a row (column {session.manifest.weight})")
        largest_D = torch.cat([batch.dense_BD, batch.weight_B[:, None]], 1).abs().amax(0)
        if float(largest_D.max()) > LARGE_NUMBER:
            place = int(largest_D.argmax())
            return (
                f"{names[place]} reaches {float(largest_D[place]):.3g} in the rows of these steps, so products of it overflow float32;"
                " correct or transform it (log1p, standardise) when you prepare the data set, and start again"
            )
    return ""
