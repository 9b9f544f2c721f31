"""Learning from a teacher, run on every rank."""

from typing import Any

import numpy as np

from dmoe import distributed
from dmoe.errors import UserError
from dmoe.testing.small_run import open_small, small_config, train_steps, whole_tables
from dmoe.train.teacher import Teachers

ROWS = 100
"""Of a batch that three ranks cannot share evenly."""


def teacher_logits(data: str, student: str, *teachers: str) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """Each teacher's logits, by turns, of the validation's first rows as the files have them; the rows' weights; and by how much the last
    teacher's tables have changed when the student has learned of it."""
    session = open_small(small_config(data, student, f"distill.teachers=[{', '.join(teachers)}]", f"train.max_steps={len(teachers)}"))
    taught = Teachers(session, len(teachers))
    logits, weights = [], []
    for step in range(len(teachers)):
        reader = session.reader("validation", in_order=True, plain=True)
        batch = next(reader.batches(ROWS, distributed.rank(), distributed.world_size()))
        logits.append(taught.logits(batch, step).numpy())
        weights.append(batch.weight_B.numpy())
    assert taught._open is not None
    frozen = whole_tables(taught._open[1])
    train_steps(session, len(teachers))
    after = whole_tables(taught._open[1])
    return logits, weights, max(float(np.abs(frozen[name] - after[name]).max()) for name in frozen)


def refusal(data: str, teacher: str, *overrides: str) -> Any:
    """What is said of a teacher."""
    session = open_small(small_config(data, f"distill.teachers=[{teacher}]", *overrides))
    try:
        Teachers(session, 1)
    except UserError as error:
        return str(error)
    return ""
