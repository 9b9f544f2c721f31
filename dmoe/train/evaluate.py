"""One pass over a split, without a change to the model."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.reader import Reader
from dmoe.distributed import rank, world_size
from dmoe.metrics.evaluation import NotFinite
from dmoe.paths import PATHS
from dmoe.train.run.predictions import Predictions
from dmoe.train.session import Session


@torch.no_grad()
def evaluate(
    session: Session, reader: Reader, between: Callable[[], None] | None = None, final: tuple[str, int] | None = None
) -> dict[str, Any]:
    """The metrics of a split over all ranks' rows, all finite or None; every rank has to call it.

    The pipeline must be drained: its batches would be evaluated, or trained on later.

    Args:
        between: called before every batch; what it raises ends the evaluation.
        final: where this is the last word on a model: a file's path, and the model's step. The AUC without each expert is added, and
            with `metrics.predictions` every row's logit and label are kept in that file; without, an older model's are removed.

    Raises:
        NotFinite: on all ranks, where the model's output for some rows is not finite.
    """
    metrics = session.config.metrics
    evaluation = session.evaluation()
    kept = Predictions(reader.order, final[1]) if final is not None and metrics.predictions else None
    # Numbers of the batches that the pipeline has taken and not given back, to name one where an output is not finite.
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
            evaluation.update(outputs, label_B, weight_B, group_B, dense.popleft())
            if kept is not None:
                more = {"expert_logit": outputs.expert_logit_BM, "gate": outputs.gate_BMG.mean(2)} if metrics.expert_predictions else {}
                kept.add(outputs.logit_B, label_B, weight_B, **more)
    finally:
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


def _noted(batches: Iterator[Batch], dense: deque[Tensor]) -> Iterator[Batch]:
    for batch in batches:
        dense.append(batch.dense_BD)
        yield batch
