"""dmoe: its session and pipeline, as `dmoe.train` steps them, without the reader."""

import torch

from dmoe.train.session import open_session
from tools.bench.builders import Built
from tools.bench.case import Case, config_of, forever, make_batches, manifest_of


def build(case: Case, rank: int) -> Built:
    session = open_session(config_of(case), manifest_of(case), torch.device("cpu"))
    session.sharded.train()
    batches = forever(make_batches(case, rank))
    tables = sum(table.rows * table.columns for table in session.tables)
    return Built(lambda: session.pipeline.progress(batches), tables, sum(parameter.numel() for parameter in session.dense.parameters()))
