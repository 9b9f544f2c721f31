"""Quality against cost: the variants of a ladder against bytes, FLOPs and measured latency, and which variants are dominated by others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dmoe.model.budget.cost import Cost
from dmoe.model.budget.sizes import human
from dmoe.report.document import Bullets, Cell, Chart, Document, Figures, Heading, Note, Series, Table
from dmoe.report.ladder.results import Difference, Ladder, compare
from dmoe.report.latency import FASTEST, Latency
from dmoe.report.numbers import level, plain, told
from dmoe.report.statistics import CONFIDENCE, Interval, holm

BYTES, FLOPS, ONE_ROW, BATCH = "scorer, bytes", "FLOPs a row", "1 row, ms", "256 rows, ms"


@dataclass(frozen=True)
class Point:
    """A variant: AUC and logloss over seeds, and its known prices by name."""

    name: str
    label: str
    auc: Interval
    logloss: Interval
    prices: dict[str, float]


@dataclass(frozen=True)
class Domination:
    """`difference.variant` dominates `difference.against`: no price that both have is higher, at least one is lower, and its mean AUC is
    higher.

    Attributes:
        p: p-value of the AUC difference over seeds, with Holm's correction for all such pairs; None with a single seed.
    """

    difference: Difference
    p: float | None

    @property
    def settled(self) -> bool:
        """Whether the AUC difference is significant over seeds and over rows."""
        return self.difference.sign > 0 and self.p is not None and self.p < 1 - CONFIDENCE


def points_of(ladder: Ladder, costs: Mapping[str, Cost], served: Mapping[str, Latency]) -> list[Point]:
    """The variants with a known cost, in the order of the ladder."""
    found = []
    for name, one in ladder.results.items():
        if (cost := costs.get(name)) is None:
            continue
        prices = {BYTES: float(cost.scorer_bytes("fp32")), FLOPS: float(cost.total_flops)}
        if (latency := served.get(name)) is not None:
            prices |= {ONE_ROW: latency.milliseconds(1, FASTEST), BATCH: latency.milliseconds(256, FASTEST)}
        found.append(Point(name, one.label, one.interval("auc"), one.interval("logloss"), prices))
    return found


def cheaper(a: Point, b: Point) -> bool:
    """Whether a costs no more than b in every price that both have, and less in at least one."""
    both = a.prices.keys() & b.prices.keys()
    return all(a.prices[one] <= b.prices[one] for one in both) and any(a.prices[one] < b.prices[one] for one in both)


def best_for(points: Sequence[Point], price: str) -> set[str]:
    """Names of the points on the frontier: no other point of the same or a lower price has the same or a higher mean AUC."""
    found: set[str] = set()
    best = -1.0
    for point in sorted((one for one in points if price in one.prices), key=lambda one: (one.prices[price], -one.auc.mean)):
        if point.auc.mean > best:
            found.add(point.name)
            best = point.auc.mean
    return found


def dominations(ladder: Ladder, points: Sequence[Point]) -> list[Domination]:
    """All pairs in which one variant dominates another. Significant pairs come first; then the larger AUC difference."""
    pairs = [(a, b) for a in points for b in points if a is not b and cheaper(a, b) and a.auc.mean > b.auc.mean]
    differences = [one for a, b in pairs if (one := compare(ladder, a.name, b.name)) is not None]
    found = [Domination(one, p) for one, p in zip(differences, holm([one.auc.p for one in differences]), strict=True)]
    return sorted(found, key=lambda one: (not one.settled, -one.difference.auc.mean))


def sentences(ladder: Ladder, points: Sequence[Point], found: Sequence[Domination]) -> list[str]:
    """Sentences: which variants are on the frontier of each price, and which are significantly dominated."""
    labels = {point.name: point.label for point in points}
    lines = []
    for price in (BYTES, FLOPS, ONE_ROW, BATCH):
        on = best_for(points, price)
        in_order = sorted((point for point in points if point.name in on), key=lambda one: one.prices[price])
        if in_order:
            lines.append(f"Frontier of AUC against {price}, cheapest first: {', '.join(point.label for point in in_order)}.")
    settled: dict[str, list[str]] = {}
    for one in found:
        if one.settled:
            settled.setdefault(one.difference.against, []).append(labels[one.difference.variant])
    lines += [f"{labels[name]} is dominated beyond chance: {', '.join(by)} cost no more and rank better." for name, by in settled.items()]
    if not settled:
        lines.append("No variant is dominated beyond chance, over seeds and over rows: the frontiers above are of means.")
    return lines


def frontier_document(ladder: Ladder, costs: Mapping[str, Cost], about: Sequence[str], served: Mapping[str, Latency]) -> Document:
    """The page of quality against cost.

    Args:
        about: paragraphs of plain text on how the ladder was made.
        served: latencies of the scorers of the variants; empty if they were not measured.
    """
    points = points_of(ladder, costs, served)
    found = dominations(ladder, points)
    prices = [one for one in (BYTES, FLOPS, ONE_ROW, BATCH) if any(one in point.prices for point in points)]
    on = {price: best_for(points, price) for price in prices}
    rows = []
    for number, point in enumerate(points, 1):
        cells = [f"{number} {point.label}", level(point.auc), level(point.logloss)]
        cells += [Cell(_priced(price, point), "good" if point.name in on[price] else "", point.prices.get(price)) for price in prices]
        rows.append(cells)
    pairs = [
        [
            ladder.results[one.difference.variant].label,
            ladder.results[one.difference.against].label,
            Cell(told(one.difference.auc), "good" if one.settled else ""),
            told(one.difference.auc_rows),
            told(one.difference.logloss),
            "-" if one.p is None else f"{one.p:.2g}",
        ]
        for one in found
    ]
    drawn = []
    for price in prices:
        priced = [(point, ladder.results[point.name]) for point in points if price in point.prices]
        for key, label in (("auc", "AUC"), ("logloss", "logloss")):
            clouds = [Series(point.label, [point.prices[price]] * len(one.values(key)), one.values(key)) for point, one in priced]
            drawn.append(Chart(f"{label} against {price}", price, label, clouds, log_x=True, cloud=True))
    explained = (
        "Mean over seeds, ± half of its 95% interval (Student's t). Green: on the frontier of AUC against this price, by means. FLOPs"
        " are of a row's forward pass; latency is the fastest call of the first seed's run, exported with fp32 rows, one thread."
    )
    return Document(
        f"{ladder.spec.title}: what quality costs",
        [
            *(Note(line, "faint") for line in about),
            Bullets(sentences(ladder, points, found)),
            Table(["variant", "AUC", "logloss", *prices], rows),
            Note(explained, "faint"),
            Figures(drawn),
            Heading("Who makes whom superfluous"),
            Table(["variant", "costs no more than", "AUC, over seeds", "over rows", "logloss", "p, Holm"], pairs, words=(0, 1)),
            Note("" if pairs else "No variant is at once cheaper in every price and higher in mean AUC than another."),
            Note("Green: beyond chance over seeds, after Holm's correction for all pairs of this table, and over rows (DeLong).", "faint"),
        ],
    )


def _priced(price: str, point: Point) -> str:
    value = point.prices.get(price)
    if value is None:
        return "-"
    return human(value) if price == BYTES else f"{value / 1e6:.3f} M" if price == FLOPS else plain(value, 2)
