"""A small log in several files, with users that appear and disappear, and a config for online runs on it, for tests."""

import random
from pathlib import Path
from typing import Any, Literal

import yaml

from dmoe.testing.small_scorer import MODEL, SCHEMA

Fault = Literal["", "flip", "broken", "bots", "schema", "clock"]
SECONDS = 600
"""Length of a window in the log's time."""


def write_window(path: Path, number: int, rows: int = 400, fault: Fault = "") -> None:
    """Writes window `number`. Clicks depend on the site; users appear in about six windows; there are also a price, tags and a time.

    Args:
        fault: flip (labels are inverted), broken (no row has a site), bots (half of the rows are clicks of one new user), schema (a column
            has another name), clock (the time is a year later).
    """
    draw = random.Random(number)
    at = 1_700_000_000 + number * SECONDS + (365 * 86400 if fault == "clock" else 0)
    lines = ["click,site,user,price,tags,at" if fault != "schema" else "click,place,user,price,tags,at"]
    for row in range(rows):
        site, user = draw.randrange(8), f"u{4 * number + draw.randrange(24)}"
        tags = "|".join(f"t{draw.randrange(9)}" for _ in range(draw.randrange(4)))
        price = "" if draw.random() < 0.1 else f"{draw.lognormvariate(1, 1):.2f}"
        click = int((draw.random() < (0.6 if site < 4 else 0.1)) != (fault == "flip"))
        if fault == "bots" and row % 2:
            user, click = "bot", 1
        lines.append(f"{click},{'' if fault == 'broken' else f's{site}'},{user},{price},{tags},{at + row}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.write_text("\n".join(lines) + "\n")
    beside.rename(path)


def write_config(folder: Path, **online: Any) -> str:
    """Writes the config of a small model, and the schema; returns the path of the config."""
    (folder / "schema.yaml").write_text(f"{SCHEMA}time: {{column: at, format: unix}}\n")
    ids = {"capacity": 34, "admit_count": 3.0, "decay": 0.7}
    tree: dict[str, Any] = {
        "model": MODEL,
        "data": {"prefetch": 0},
        "train": {"batch_size": 64, "eval_batch_size": 128, "checkpoint": {"keep": 100}},
        "online": {"schema_file": str(folder / "schema.yaml"), "ids": ids, "versions": {"full_every": 3, "onnx": False}, **online},
    }
    (folder / "online.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / "online.yaml")
