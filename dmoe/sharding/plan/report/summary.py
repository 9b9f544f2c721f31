"""Figures of the ranks of a plan as plain data, and its distance from the lower bound as text."""

import math
from typing import Any

from dmoe.sharding.planner.cost.cost_model import Prediction


def rank_rows(prediction: Prediction) -> list[dict[str, Any]]:
    """One row per rank: bytes held, and bytes sent, milliseconds and lookups per step."""
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
    """Text that says how far the critical rank's time is above the best possible time, at most.

    Args:
        bound_ms: lower bound stored in the plan; 0 if there is none.

    Returns:
        Empty if there is no bound, or the time is below it: the file was edited, so the bound belongs to another cluster or batch size.
    """
    if not 0 < bound_ms <= time_ms * (1 + 1e-6):
        return ""
    # Rounded up, since the text says "at most".
    return f"at most {math.ceil(max(time_ms / bound_ms - 1, 0.0) * 1000 - 1e-3) / 1000:.1%} above a lower bound"
