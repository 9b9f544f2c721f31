"""A small log in files, whose users come and go, and a config that follows it: what tests of online runs begin with."""

import random
from pathlib import Path
from typing import Any

import yaml

from dmoe.testing.small_scorer import MODEL, SCHEMA


def write_window(path: Path, number: int, rows: int = 400, rate: float = 0.6, flip: bool = False) -> None:
    """Writes window `number`: clicks depend on the site; users live for some six windows; a price and tags.

    Args:
        rate: of clicks on the better sites.
        flip: labels are inverted.
    """
    draw = random.Random(number)
    lines = ["click,site,user,price,tags"]
    for _ in range(rows):
        site, user = draw.randrange(8), 4 * number + draw.randrange(24)
        tags = "|".join(f"t{draw.randrange(9)}" for _ in range(draw.randrange(4)))
        price = "" if draw.random() < 0.1 else f"{draw.lognormvariate(1, 1):.2f}"
        click = draw.random() < (rate if site < 4 else 0.1)
        lines.append(f"{int(click != flip)},s{site},u{user},{price},{tags}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.write_text("\n".join(lines) + "\n")
    beside.rename(path)


def write_config(folder: Path, **online: Any) -> str:
    """Writes a config of a small model and its schema; returns the config's path."""
    (folder / "schema.yaml").write_text(SCHEMA)
    tree: dict[str, Any] = {
        "model": MODEL,
        "data": {"prefetch": 0},
        "train": {"batch_size": 64, "eval_batch_size": 128, "checkpoint": {"keep": 100}},
        "online": {
            "schema_file": str(folder / "schema.yaml"),
            "ids": {"capacity": 34, "admit_count": 3.0, "decay": 0.7},
            "versions": {"full_every": 3},
            **online,
        },
    }
    (folder / "online.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / "online.yaml")
