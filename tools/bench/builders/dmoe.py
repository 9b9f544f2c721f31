"""(a) dmoe: its session and pipeline, as `dmoe.train` steps them, without the reader."""

from collections.abc import Callable

import torch

from dmoe.train.session import open_session
from tools.bench.case import Case, config_of, forever, make_batches, manifest_of


def build(case: Case, rank: int) -> Callable[[], None]:
    session = open_session(config_of(case), manifest_of(case), torch.device("cpu"))
    session.sharded.train()
    batches = forever(make_batches(case, rank))

    def step() -> None:
        session.pipeline.progress(batches)

    return step
