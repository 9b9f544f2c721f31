"""Evaluates a model on a split."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.reading.reader import Reader
from dmoe.data.progress import Progress
from dmoe.distributed import rank, world_size
from dmoe.metrics.evaluation import NotFinite
from dmoe.storage.paths import PATHS
from dmoe.train.run.predictions import Predictions
from dmoe.train.session import Session


@torch.no_grad()
def evaluate(
    session: Session,
    reader: Reader,
    between: Callable[[], None] | None = None,
    final: tuple[str, int] | None = None,
    told: Progress | None = None,
) -> dict[str, Any]:
    """The metrics of a split over the rows of all ranks; each is finite or None. Every rank must call it.

    The pipeline must be drained. Otherwise its batches would be evaluated too.

    Args:
        between: called before every batch. An exception of it ends the evaluation.
        final: for the final evaluation of a model: (path of a file, step of the model). Then the AUC without each expert is computed, and
            with `metrics.predictions` the logit and label of every row are written to the file; without, an older file is removed.
        told: counts the rows of all ranks, batch by batch.

    Raises:
        NotFinite: on all ranks, if the model's output for some row is not finite.
    """
    metrics = session.config.metrics
    evaluation = session.evaluation()
    kept = Predictions(reader.order, final[1]) if final is not None and metrics.predictions else None
    # Dense features of the batches within the pipeline, to name the likely reason if an output is not finite.
    dense: deque[Tensor] = deque()
    batches = _noted(reader.batches(session.config.train.eval_batch_size, rank(), world_size()), dense)
    began = time.perf_counter()
    session.sharded.eval()
    session.task.controls.leave_out = final is not None
    try:
        while True:
            if between is not None:
                between()
            try:
                _, outputs, label_B, weight_B, group_B = session.pipeline.progress(batches)
            except StopIteration:
                break
            if told is not None:
                told.update(min(session.config.train.eval_batch_size, reader.rows - told.rows))
            evaluation.update(outputs, label_B, weight_B, group_B, dense.popleft())
            if kept is not None:
                more = {"expert_logit": outputs.expert_logit_BM, "gate": outputs.gate_BMG.mean(2)} if metrics.expert_predictions else {}
                kept.add(outputs.logit_B, label_B, weight_B, **more)
    finally:
        if told is not None:
            told.close()
        session.sharded.train()
        session.task.controls.leave_out = False
    try:
        figures = evaluation.compute(session.blueprint.dense)
    except NotFinite as error:
        raise NotFinite(f"{reader}: {error}") from None
    finally:
        evaluation.reset()
    figures |= {"eval_samples_per_second": figures["rows"] / (time.perf_counter() - began)}
    if kept is not None and final is not None:
        kept.write(final[0])
    elif final is not None and rank() == 0 and PATHS.exists(final[0]):
        PATHS.rm(final[0])
    return figures


def shown_of(what: str, reader: Reader) -> Progress | None:
    """The progress line of an evaluation, on rank 0."""
    return Progress(what, reader.rows) if rank() == 0 else None


def _noted(batches: Iterator[Batch], dense: deque[Tensor]) -> Iterator[Batch]:
    for batch in batches:
        dense.append(batch.dense_BD)
        yield batch
