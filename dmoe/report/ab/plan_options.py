"""Options of `dmoe ab plan`. Imports no slow module."""

from dataclasses import dataclass
from typing import Literal

from dmoe.config.option import option

Metric = Literal["clicks", "logloss"]


@dataclass(frozen=True)
class PlanOptions:
    metric: Metric = option("clicks", "clicks: click rate; logloss: mean loss of a row (%(default)s)")
    baseline: float = option(0.0, "the control's click rate, or its logloss", metavar="X")
    effect: float = option(0.0, "smallest difference that the test shall find, such as 0.001", metavar="X")
    relative: float = option(0.0, "the same as a share of the baseline, such as 0.02", metavar="X")
    deviation: float = option(0.0, "logloss: standard deviation of a row's loss, which `dmoe ab read` tells", metavar="X")
    rows_a_unit: float = option(1.0, "rows that a unit has in the whole test, in the mean (%(default)s)")
    spread: float = option(1.0, "standard deviation of the rows of a unit over their mean (%(default)s)", metavar="X")
    correlation: float = option(0.0, "intra-unit correlation of the rows' outcomes, which `dmoe ab read` tells (%(default)s)", metavar="X")
    traffic: float = option(0.0, "rows a day of the whole site", metavar="N")
    shares: str = option("0.5,0.5", "of the traffic: control and treatment (%(default)s)", metavar="A,B")
    alpha: float = option(0.05, "two-sided false-positive rate (%(default)s)", metavar="X")
    power: float = option(0.8, "probability to find that difference (%(default)s)", metavar="X")
