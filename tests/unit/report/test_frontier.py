"""The frontier of ladders whose truth is known: what is cheaper and better, and by how much."""

from dataclasses import replace

import pytest

from dmoe.model.budget.cost import SetCost
from dmoe.report.document import Figures
from dmoe.report.ladder.frontier import (
    BATCH,
    BYTES,
    FLOPS,
    ONE_ROW,
    best_for,
    cheaper,
    dominations,
    frontier_document,
    points_of,
    sentences,
)
from dmoe.report.latency import BATCHES, Latency
from tests.unit.report.test_words import COST, MONOTONE, ladder


def costs(**parameters: int):
    return {name: replace(COST, sets=(SetCost((0,), count, 4 * count, count, 1),)) for name, count in parameters.items()}


def served(**seconds: float) -> dict[str, Latency]:
    return {name: Latency(10, {rows: [one * rows, 2 * one * rows] for rows in BATCHES}) for name, one in seconds.items()}


def test_a_cheap_and_good_variant_dominates_beyond_chance():
    points = points_of(MONOTONE, costs(a=100, bb=300, ccc=100), {})
    found = dominations(MONOTONE, points)
    assert [(one.difference.variant, one.difference.against, one.settled) for one in found] == [("ccc", "bb", True)]
    assert best_for(points, BYTES) == {"ccc"}
    said = sentences(MONOTONE, points, found)
    assert any("BB is dominated" in line and "CCC" in line for line in said)
    assert not any("A is dominated" in line for line in said)


def test_what_is_dearer_in_any_price_dominates_nobody():
    points = points_of(MONOTONE, costs(a=100, bb=200, ccc=100), served(a=1.0, bb=1.0, ccc=2.0))
    assert not cheaper(points[2], points[1])
    assert not cheaper(points[0], points[0])
    assert cheaper(points[0], points[1])
    assert not dominations(MONOTONE, points)
    assert best_for(points, ONE_ROW) == {"bb", "ccc"}
    assert points[1].prices[BATCH] == pytest.approx(256e3)


def test_a_difference_by_chance_settles_nothing():
    alike = ladder({"a": 1.0, "bb": 1.0}, {"a": 0.3, "bb": 0.2}, jitter=0.2)
    better = max(alike.results, key=lambda name: alike.results[name].mean("auc"))
    found = dominations(alike, points_of(alike, costs(**{name: 1 + (name != better) for name in ("a", "bb")}), {}))
    assert [one.settled for one in found] == [False]
    assert "No variant is dominated beyond chance" in sentences(alike, points_of(alike, costs(a=1, bb=1), {}), found)[-1]


def test_one_seed_settles_nothing():
    one = ladder({"a": 1.0, "bb": 2.0}, {"a": 0.3, "bb": 0.2}, seeds=1)
    assert [found.settled for found in dominations(one, points_of(one, costs(a=2, bb=1), {}))] == [False]


def test_the_page_has_every_point_and_a_drawing_of_each_price():
    view = frontier_document(MONOTONE, costs(a=100, bb=300, ccc=100), ["about"], served(a=0.001, bb=0.002))
    page = view.html()
    for word in ("about", "A", "BB", "CCC", "superfluous"):
        assert word in page
    drawn = [(chart.title, len(chart.series)) for block in view.blocks if isinstance(block, Figures) for chart in block.charts]
    assert drawn == [
        (f"{what} against {price}", count)
        for price, count in ((BYTES, 3), (FLOPS, 3), (ONE_ROW, 2), (BATCH, 2))
        for what in ("AUC", "logloss")
    ]
