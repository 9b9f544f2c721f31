"""A trace of two ranks: one file each, of the steps' phases and the collectives between them."""

import json
from pathlib import Path
from typing import Any

from dmoe import distributed
from dmoe.testing.small_run import open_small, small_config, train_steps
from dmoe.train.output.trace import Trace

PHASES = ("## copy_batch_to_gpu", "## start_sparse_data_dist", "## wait_sparse_data_dist", "## forward", "## backward", "## optimizer")


def traced(data: str, folder: str) -> None:
    session = open_small(small_config(data))
    trace = Trace((2, 1), folder, distributed.rank())
    for done in range(3):
        trace.step(done)
        train_steps(session, 1, start_row=done * 64)
    trace.close()


def test_each_rank_writes_its_phases_and_collectives(ranks: Any, data_set: str, tmp_path: Path) -> None:
    ranks(2).run(traced, data_set, str(tmp_path))
    told = [json.loads((tmp_path / "trace" / f"rank-{rank}.pt.trace.json").read_text()) for rank in (0, 1)]
    assert [one["distributedInfo"]["rank"] for one in told] == [0, 1]
    for one in told:
        spans = [event for event in one["traceEvents"] if event["ph"] == "X"]
        assert all(event["dur"] >= 0 and event["ts"] > 0 for event in spans)
        names = [event["name"] for event in spans]
        assert [phase for phase in PHASES if not any(name.startswith(phase) for name in names)] == []
        assert {"gloo:all_to_all", "gloo:all_reduce"} <= set(names)
