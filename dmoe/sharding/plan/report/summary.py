"""The rows of a plan's tables: one a rank, one a table, as plain data."""

import math
from typing import Any

from dmoe.sharding.planner.cost.cost_model import Prediction


def rank_rows(prediction: Prediction) -> list[dict[str, Any]]:
    """What every rank holds and does in a step: bytes, milliseconds, counts."""
    sums = {name: getattr(prediction, name).sum(0) for name in ("memory", "host", "weights", "state", "time", "sent", "lookups")}
    total = max(float(sums["lookups"].sum()), 1e-9)
    return [
        {
            "rank": rank,
            "memory": int(sums["memory"][rank]),
            "host_memory": int(sums["host"][rank]),
            "weights": int(sums["weights"][rank]),
            "state": int(sums["state"][rank]),
            "lookups": round(float(sums["lookups"][rank]), 1),
            "lookup_share": round(float(sums["lookups"][rank]) / total, 6),
            "sent": int(sums["sent"][rank]),
            "time_ms": round(float(sums["time"][rank]), 6),
        }
        for rank in range(len(sums["time"]))
    ]


def over_bound(bound_ms: float, time_ms: float) -> str:
    """How far the critical rank's time is above the best possible one, at most.

    Args:
        bound_ms: as a plan keeps it; 0 where it has none.

    Returns:
        Empty without a bound, and where the time is under it: the file was edited, and the bound is of another cluster or batch.
    """
    if not 0 < bound_ms <= time_ms * (1 + 1e-6):
        return ""
    # Rounded up: it is a promise.
    return f"at most {math.ceil(max(time_ms / bound_ms - 1, 0.0) * 1000 - 1e-3) / 1000:.1%} above a lower bound"
