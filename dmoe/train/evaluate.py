"""One pass over a split, without a change to the model."""

import time
from typing import Any

import torch

from dmoe.data.reader import Reader
from dmoe.distributed import rank, world_size
from dmoe.train.metrics.evaluation import Evaluation
from dmoe.train.session import Session


@torch.no_grad()
def evaluate(session: Session, reader: Reader) -> dict[str, Any]:
    """The metrics of a split over all ranks' rows; every rank has to call it.

    The pipeline must be drained: its batches would be evaluated, or trained on later.
    """
    metrics = session.config.metrics
    evaluation = Evaluation(metrics.auc, metrics.auc_bins, session.device)
    batches = reader.batches(session.config.train.eval_batch_size, rank(), world_size())
    began = time.perf_counter()
    session.sharded.eval()
    try:
        while True:
            try:
                _, outputs, label_B, weight_B = session.pipeline.progress(batches)
            except StopIteration:
                break
            evaluation.update(outputs, label_B, weight_B)
    finally:
        session.sharded.train()
    figures = evaluation.compute()
    return figures | {"eval_samples_per_second": figures["rows"] / (time.perf_counter() - began)}
