"""One pass over a split, without a change to the model."""

import time
from collections.abc import Callable
from typing import Any

import torch

from dmoe.data.dataset.reader import Reader
from dmoe.distributed import rank, world_size
from dmoe.metrics.evaluation import Evaluation
from dmoe.train.run.predictions import Predictions
from dmoe.train.session import Session


@torch.no_grad()
def evaluate(session: Session, reader: Reader, between: Callable[[], None] | None = None, final: str | None = None) -> dict[str, Any]:
    """The metrics of a split over all ranks' rows; every rank has to call it.

    The pipeline must be drained: its batches would be evaluated, or trained on later.

    Args:
        between: called before every batch; what it raises ends the evaluation.
        final: where this is the last word on a model: the AUC without each expert is added, and with `metrics.predictions` every row's
            logit and label are kept in the file of that name.
    """
    metrics = session.config.metrics
    evaluation = Evaluation(metrics.auc, metrics.auc_bins, session.device)
    kept = Predictions(reader.order) if final is not None and metrics.predictions else None
    batches = reader.batches(session.config.train.eval_batch_size, rank(), world_size())
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
            evaluation.update(outputs, label_B, weight_B, group_B)
            if kept is not None:
                kept.add(outputs.logit_B, label_B, weight_B)
    finally:
        session.sharded.train()
        session.task.controls.leave_out = False
    figures = evaluation.compute()
    figures |= {"eval_samples_per_second": figures["rows"] / (time.perf_counter() - began)}
    if kept is not None and final is not None:
        kept.write(final)
    return figures
