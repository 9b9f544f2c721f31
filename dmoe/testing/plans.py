"""Config overrides for a sharding plan and a layout, for the invariance tests."""

MIXED = {
    "mixed": ("data_parallel", "row_wise", "column_wise", "table_wise"),
    "mixed on hosts": ("data_parallel", "table_row_wise", "table_column_wise", "grid_shard"),
}
"""Plans with four sharding types, one for the tables of each feature of the test data."""


def overrides(plan: str, layout: str) -> list[str]:
    """The overrides for a plan (a sharding type, a name in MIXED, or `planner's choice`) and a layout (`wide` or `separate`)."""
    chosen = [f"model.embedding.layout={layout}"]
    if plan == "planner's choice":
        return chosen
    if plan in MIXED:
        each = ", ".join(f"C{number}: {{types: [{name}]}}" for number, name in enumerate(MIXED[plan], 1))
        return [*chosen, f"sharding.tables={{{each}}}"]
    return [*chosen, f"sharding.types=[{plan}]"]
