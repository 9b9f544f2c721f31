"""Simulated exposures and clicks of an A/B test with a known truth, in the formats of `dmoe serve --split` and of a click log."""

import csv
from pathlib import Path

import numpy as np
from scipy.stats import beta

from dmoe.serve.ab.exposures import Exposure, ExposureLog

FIRST_DAY = 20_788
"""2026-12-01, in days since 1970."""


def write_traffic(
    folder: Path,
    units: int = 2000,
    days: int = 7,
    rate: float = 0.2,
    lift: float = 0.0,
    lost: float = 0.0,
    correlation: float = 0.05,
    shadow: bool = False,
    fades: bool = False,
    seed: int = 0,
) -> tuple[str, str]:
    """Writes exposures and clicks of two arms, `control` and `new`, with equal shares. A unit has about one request of one row each day.

    Args:
        rate: click rate of `control`.
        lift: the click rate of `new` is `rate + lift`.
        lost: share of the units in `new` that are not logged.
        correlation: correlation between the clicks of a unit.
        shadow: whether exposures have scores of a shadow.
        fades: whether the lift falls to 0 from the first day to the last.

    Returns:
        The folder of exposures, and the CSV file of clicks, which come up to 10 minutes after their exposure.
    """
    draw = np.random.default_rng(seed)
    split = {"test": "planted", "salt": "planted", "control": "control", "arms": {"control": 0.5, "new": 0.5}}
    exposures, clicks = str(folder / "exposures"), folder / "clicks.csv"
    log = ExposureLog(exposures, 10**7, 10**6, split)
    arm_U = draw.integers(0, 2, units)
    strength = 1 / correlation - 1
    luck_U = draw.random(units)
    kept_U = ~((arm_U == 1) & (draw.random(units) < lost))
    with open(clicks, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["request_id", "time"])
        for day in range(days):
            mean_U = rate + lift * arm_U * (1 - day / (days - 1) if fades else 1)
            # The click rate of a unit relative to the others is the same every day.
            p_U = beta.ppf(luck_U, mean_U * strength, (1 - mean_U) * strength)
            for unit in np.repeat(np.arange(units), draw.poisson(1.0, units)):
                if not kept_U[unit]:
                    continue
                second = (FIRST_DAY + day) * 86_400 + float(draw.integers(0, 86_000))
                arm, name = ("control", "new")[arm_U[unit]], f"{day}-{unit}-{draw.integers(0, 2**48):x}"
                score_B = np.array([min(max(mean_U[unit] + 0.5 * (p_U[unit] - mean_U[unit]), 0.01), 0.99)], np.float32)
                also = (np.array([p_U[unit]], np.float32).clip(0.01, 0.99), "2-b") if shadow else (None, None)
                log.add(Exposure(f"u{unit}", arm, f"1-{arm}", score_B, name, second, *also))
                if draw.random() < p_U[unit]:
                    writer.writerow([name, f"{second + draw.integers(1, 600):.0f}"])
    log.close()
    return exposures, str(clicks)
