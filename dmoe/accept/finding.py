"""The result of a stage of an acceptance."""

from collections.abc import Mapping
from dataclasses import dataclass, field

HELD, FAILED, SKIPPED = "held", "failed", "skipped"


@dataclass(frozen=True)
class Figure:
    """A measured number; `limit` describes its bound in words, and is empty if there is none."""

    name: str
    value: float
    unit: str = ""
    limit: str = ""


@dataclass(frozen=True)
class Finding:
    """The result of a stage.

    Attributes:
        stage: name of the stage.
        verdict: `held`, `failed` or `skipped`.
        meaning: what the verdict means for this machine, in one sentence.
        reason: why the stage failed or was skipped; empty if it held.
        figures: the measured numbers.
        seconds: duration.
        bound: time limit in seconds.
    """

    stage: str
    verdict: str
    meaning: str
    reason: str = ""
    figures: tuple[Figure, ...] = ()
    seconds: float = 0.0
    bound: float = 0.0


class Failed(Exception):
    """The stage failed; the message says what was observed."""


class Skipped(Exception):
    """The stage cannot run here; the message says why."""


@dataclass
class Notes:
    """Figures and problems that a stage records while it runs; they are reported even if the stage fails later."""

    figures: list[Figure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def figure(self, name: str, value: float, unit: str = "", limit: str = "") -> None:
        self.figures.append(Figure(name, float(value), unit, limit))

    def hold(self, holds: bool, problem: str) -> None:
        """Records the problem if `holds` is false; the stage continues."""
        if not holds:
            self.problems.append(problem)

    def differences(self, what: str, found: Mapping[str, float], bound: float) -> None:
        """Records the largest of the differences of `what`, such as `outputs`, by name, as a figure, and a problem for each that is above
        the bound or NaN."""
        for name, value in found.items():
            self.hold(value <= bound, f"{name}: {what} differ by {value:.2g}, allowed are {bound:g}")
        self.figure(f"largest difference of {what}", max(found.values(), default=0.0), "", f"at most {bound:g}")

    def within(self, name: str, value: float, bound: float, unit: str = "") -> None:
        """Records a figure, and a problem if it is above the bound or NaN."""
        self.figure(name, value, unit, f"at most {bound:g}")
        self.hold(value <= bound, f"{name} is {value:.3g}{f' {unit}' if unit else ''}, allowed are {bound:g}")

    def at_least(self, name: str, value: float, bound: float, unit: str = "") -> None:
        """Records a figure, and a problem if it is below the bound or NaN."""
        self.figure(name, value, unit, f"at least {bound:g}")
        self.hold(value >= bound, f"{name} is {value:.3g}{f' {unit}' if unit else ''}, expected at least {bound:g}")
