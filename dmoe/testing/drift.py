"""A synthetic click log that drifts: tokens appear and disappear, and their effects rotate. The best possible AUC of each window is known.

The effect of a token in window w is a cos(speed w) + b sin(speed w), with a and b drawn for each token. Effects in two windows a quarter
turn apart are independent. There is also an effect of (user, item): the inner product of two vectors that rotate in the same way.

Shapes: N rows of a window, T tokens of a feature in the whole log, A tokens alive in a window, K dims of the vectors.
"""

import math
import os
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from numpy.typing import NDArray

from dmoe.errors import UserError
from dmoe.finite import require_finite
from dmoe.json_text import format_json
from dmoe.storage.paths import join, write_atomic, write_text
from dmoe.testing.synthesize import Tally, Truth

FEATURES = {"user": (4.0, 0.7), "item": (1.0, 1.0), "site": (0.1, 0.8)}
"""Feature -> (number of tokens alive, as a multiple of `tokens`; weight of its first-order effect)."""
DIM, PAIR = 3, 0.45
SCHEMA = """label: click
time: {column: at, format: unix}
dense: [{name: price, transform: log1p}]
categorical: [user, item, site, {name: hour, part: hour}]
"""
START, SECONDS = 1_700_000_000, 3600
"""Start of the first window and length of a window, in the unit of the column `at` (seconds since 1970)."""


@dataclass(frozen=True)
class DriftWindow(Truth):
    """The truth about a window."""

    file: str


def write_drift(
    folder: str, windows: int, rows: int, seed: int = 0, tokens: int = 2000, turnover: float = 0.08, speed: float = 0.08
) -> list[DriftWindow]:
    """Writes a CSV file for each window, `schema.yaml`, and `truth.json` with the returned values.

    Args:
        rows: number of rows of a window.
        tokens: number of items alive at a time; there are four times as many users, and a tenth as many sites.
        turnover: share of the tokens that are replaced by new ones in each window.
        speed: rotation of the effects in radians per window.

    Raises:
        UserError: an argument is out of range.
    """
    for name, value, low, high in (
        ("--windows", windows, 1, 100_000),
        ("--rows", rows, 10, 1 << 30),
        ("--tokens", tokens, 100, 10_000_000),
        ("--turnover", turnover, 0, 1),
        ("--speed", speed, 0, 10),
    ):
        if not low <= value <= high:
            raise UserError(f"{name} is {value}, expected {low} .. {high:,}")
    os.makedirs(folder, exist_ok=True)
    write_text(join(folder, "schema.yaml"), SCHEMA)
    draw = np.random.default_rng(seed)
    parts = {name: _Feature(max(int(tokens * times), 4), windows, turnover, draw) for name, (times, _) in FEATURES.items()}
    told = [_window(folder, number, rows, seed, speed, parts) for number in range(windows)]
    content = {
        "seed": seed,
        "tokens": tokens,
        "turnover": turnover,
        "speed": speed,
        "windows": [{"file": one.file, **asdict(one)} for one in told],
    }
    write_text(join(folder, "truth.json"), format_json(content, indent=1) + "\n")
    return told


class _Feature:
    """The tokens of a feature: number i is alive from window (i - A) / (turnover A) on, for 1 / turnover windows."""

    def __init__(self, alive: int, windows: int, turnover: float, draw: np.random.Generator) -> None:
        self.alive, self.born = alive, turnover * alive
        total = alive + math.ceil(self.born * windows)
        self.worth_2T = draw.normal(size=(2, total))
        self.vector_2TK = draw.normal(size=(2, total, DIM))
        # The popularity of a token is Zipf-like, and does not change.
        self.popularity_T = draw.random(total) ** -0.8

    def drawn(self, window: int, rows: int, draw: np.random.Generator) -> NDArray[np.int64]:
        """Draws the tokens of the rows of a window, [N]."""
        first = int(self.born * window)
        share_A = self.popularity_T[first : first + self.alive]
        return first + np.searchsorted(np.cumsum(share_A) / share_A.sum(), draw.random(rows)).clip(max=self.alive - 1)


def _window(folder: str, number: int, rows: int, seed: int, speed: float, parts: dict[str, _Feature]) -> DriftWindow:
    draw = np.random.default_rng([seed, number])
    turn_2 = np.array([math.cos(speed * number), math.sin(speed * number)])
    token = {name: part.drawn(number, rows, draw) for name, part in parts.items()}
    price_N = draw.lognormal(1.0, 1.0, rows)
    logit_N = -1.3 + 0.5 * np.sin(1.5 * np.log1p(price_N))
    for name, (_, weight) in FEATURES.items():
        logit_N += weight * (turn_2 @ parts[name].worth_2T[:, token[name]])
    met = [np.tensordot(turn_2, parts[name].vector_2TK[:, token[name]], 1) for name in ("user", "item")]
    logit_N += PAIR * (met[0] * met[1]).sum(1)
    p_N = 1 / (1 + np.exp(-logit_N))
    click_N = (draw.random(rows) < p_N).astype(np.int64)
    at_N = START + (number * rows + np.arange(rows)) * SECONDS // rows
    require_finite(price_N, "price")
    columns = {"click": click_N, **{name: [f"{name[0]}{one}" for one in ids] for name, ids in token.items()}}
    path = join(folder, f"window-{number + 1:04d}.csv")
    with write_atomic(path, sync=False) as file:
        csv.write_csv(pa.table({**columns, "price": np.round(price_N, 4), "at": at_N}), file)
    tally = Tally()
    tally.add(p_N, click_N)
    return DriftWindow(**vars(tally.truth()), file=os.path.basename(path))
