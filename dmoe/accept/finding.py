"""What a stage of an acceptance found."""

from dataclasses import dataclass, field

HELD, FAILED, SKIPPED = "held", "failed", "skipped"


@dataclass(frozen=True)
class Figure:
    """A measured number; `limit` is what it was held against, in words, empty where it is told only."""

    name: str
    value: float
    unit: str = ""
    limit: str = ""


@dataclass(frozen=True)
class Finding:
    """How a stage went.

    Attributes:
        stage: its name.
        verdict: `held`, `failed` or `skipped`.
        meaning: what that says of the machine, in one sentence.
        reason: why it failed or was skipped; empty where it held.
        figures: what was measured.
        seconds: it took.
        bound: seconds after which it would have been ended.
    """

    stage: str
    verdict: str
    meaning: str
    reason: str = ""
    figures: tuple[Figure, ...] = ()
    seconds: float = 0.0
    bound: float = 0.0


class Failed(Exception):
    """What the stage proves does not hold here; the message says what was seen."""


class Skipped(Exception):
    """The stage cannot run here; the message says why."""


@dataclass
class Notes:
    """What a stage writes down while it runs: kept also where it fails later."""

    figures: list[Figure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def figure(self, name: str, value: float, unit: str = "", limit: str = "") -> None:
        self.figures.append(Figure(name, float(value), unit, limit))

    def hold(self, holds: bool, problem: str) -> None:
        """Writes a problem down where something does not hold; the stage goes on."""
        if not holds:
            self.problems.append(problem)

    def within(self, name: str, value: float, bound: float, unit: str = "") -> None:
        """A figure that must not be above its bound; NaN is."""
        self.figure(name, value, unit, f"at most {bound:g}")
        self.hold(value <= bound, f"{name} is {value:.3g}{f' {unit}' if unit else ''}, allowed are {bound:g}")

    def at_least(self, name: str, value: float, bound: float, unit: str = "") -> None:
        """A figure that must not be below its bound; NaN is."""
        self.figure(name, value, unit, f"at least {bound:g}")
        self.hold(value >= bound, f"{name} is {value:.3g}{f' {unit}' if unit else ''}, expected at least {bound:g}")
