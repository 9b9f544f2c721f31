"""A kept plan as text of at most 100 columns: what each rank holds and does, and where each table lies."""

from collections.abc import Iterator, Mapping
from typing import Any

from dmoe.model.sizes import human

BAR = 20


def as_lines(plan: Mapping[str, Any], top: int | None = None) -> Iterator[str]:
    """The lines that `tools/plan.py show` prints.

    Args:
        plan: a plan file's data, as `read_plan` checks it.
        top: how many tables, the largest first; all where absent.
    """
    cluster, predicted = plan["cluster"], plan["predicted"]
    yield (
        f"{plan['world_size']} ranks on {cluster['nodes']} node(s) of {cluster['ranks_a_node']} ({cluster['device']['name']}),"
        f" global batch {plan['batch_size']:,}, tables by {plan['optimizer']}"
    )
    yield ""
    yield f"{'rank':>5}  {'weights':>9}  {'state':>9}  {'lookups':>8}  {'sent a step':>11}  {'predicted':>10}"
    slowest = max(rank["time_ms"] for rank in predicted["ranks"]) or 1.0
    for rank in predicted["ranks"]:
        bar = "#" * round(BAR * rank["time_ms"] / slowest)
        mark = "  critical" if rank["rank"] == predicted["critical_rank"] else ""
        yield (
            f"{rank['rank']:>5}  {human(rank['weights']):>9}  {human(rank['state']):>9}  {rank['lookup_share']:>8.1%}"
            f"  {human(rank['sent']):>11}  {rank['time_ms']:>7.3f} ms  {bar}{mark}"
        )
    yield ""
    yield f"{'table':<14}  {'rows x columns':>18}  {'with state':>10}  {'sharding':<18}  {'kernel':<8}  ranks"
    largest_first = sorted(plan["tables"].items(), key=lambda item: (-item[1]["weight_bytes"], item[0]))
    for name, table in largest_first[:top]:
        rows, columns = table["size"]
        total = human(table["weight_bytes"] + table["state_bytes"])
        yield (
            f"{name:<14}  {f'{rows:,} x {columns}':>18}  {total:>10}  {table['sharding_type']:<18}  {table['compute_kernel']:<8}"
            f"  {ranks_of(table, plan['world_size'])}"
        )
    if top is not None and len(largest_first) > top:
        yield f"and {len(largest_first) - top} smaller ones"


def ranks_of(table: Mapping[str, Any], world_size: int) -> str:
    """The ranks that hold a table: `all`, or their numbers."""
    ranks = sorted({shard["rank"] for shard in table["shards"] or []})
    if not ranks or len(ranks) == world_size:
        return "all"
    return ", ".join(str(rank) for rank in ranks)
