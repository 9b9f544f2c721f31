"""Avazu's click log (Kaggle 2014), `id,click,hour,C1,banner_pos,site_id,...,C14..C21`, as a schema.

The hour, YYMMDDHH, becomes hour of day, weekday and is_weekend, as FuxiCTR's avazu_x4 does; the id, one a row, is left out.
"""

from typing import Any

from dmoe.data.log.schema import Schema, parse_schema
from dmoe.errors import UserError, nearest

FIELDS = (
    *("C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
    *("device_id", "device_ip", "device_model", "device_type", "device_conn_type"),
    *(f"C{number}" for number in range(14, 22)),
)
PROTOCOLS = {
    "x4": {"parts": ("hour", "weekday", "is_weekend"), "min_count": 2, "split": "0.8,0.1,0.1", "split_by": "random"},
    "x1": {"parts": ("hour",), "min_count": 4, "split": "0.7,0.1,0.2", "split_by": "time"},
    "multi_embedding": {"parts": ("hour",), "min_count": 4, "split": "0.8,0.1,0.1", "split_by": "random"},
}
"""What a protocol reads from the hour, and its defaults of --min-count, --split and --split-by."""


def avazu_schema(protocol: str = "x4", drop: tuple[str, ...] = ()) -> Schema:
    """The schema of Avazu's train.csv.

    Args:
        drop: columns to leave out, such as device_id.

    Raises:
        UserError: no such column.
    """
    for name in drop:
        if name not in FIELDS:
            raise UserError(f"--drop: no column '{name}'{nearest(name, FIELDS)}")
    parts: tuple[str, ...] = PROTOCOLS[protocol]["parts"]  # type: ignore[assignment]
    tree: dict[str, Any] = {
        "format": "csv",
        "label": "click",
        "time": {"column": "hour", "format": "%y%m%d%H"},
        "categorical": [*(field for field in FIELDS if field not in drop), *({"name": part, "part": part} for part in parts)],
    }
    return parse_schema(tree, f"avazu --protocol {protocol}")
