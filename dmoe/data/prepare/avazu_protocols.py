"""Published protocols for Avazu's log. Each one selects a shipped schema and the defaults of --min-count, --split and --split-by."""

from typing import Any

from dmoe.data.prepare.schema import Schema, load_schema
from dmoe.errors import UserError, nearest

PROTOCOLS: dict[str, dict[str, Any]] = {
    "x4": {"schema": "avazu_x4", "min_count": 2, "split": "0.8,0.1,0.1", "split_by": "random"},
    "x1": {"schema": "avazu_x1", "min_count": 4, "split": "0.7,0.1,0.2", "split_by": "time"},
    "multi_embedding": {"schema": "avazu_x1", "min_count": 4, "split": "0.8,0.1,0.1", "split_by": "random"},
}


def avazu_schema(protocol: str = "x4", drop: tuple[str, ...] = ()) -> Schema:
    """The schema of Avazu's train.csv.

    Args:
        drop: columns to leave out, such as device_id.

    Raises:
        UserError: no such column.
    """
    schema = load_schema(PROTOCOLS[protocol]["schema"])
    names = [one.name for one in schema.categorical if not one.part]
    for name in drop:
        if name not in names:
            raise UserError(f"--drop: no column '{name}'{nearest(name, names)}")
    return schema.model_copy(update={"categorical": [one for one in schema.categorical if one.name not in drop]})
