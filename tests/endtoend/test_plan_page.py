"""The page of a plan in a browser: found, sorted, pointed at, clicked and walked through by keys, as a reader does."""

import json
import math
import random

import numpy as np
import pytest

from dmoe.report.document import Document
from dmoe.sharding.plan.report.diff import diff_document, difference
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.report.show_page import explorer
from tests.endtoend.browser import PROGRAM, Browser
from tests.endtoend.needs import or_skip
from tests.unit.sharding.small_plans import plan_of, table

pytestmark = [pytest.mark.slow, or_skip("CHROMIUM", None if PROGRAM else "no chromium: run .ci/install_chromium.sh")]

EVIL = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>'&ñ"
BIG, RANKS = 1000, 1024


def made(count, cluster, ranks, seed=0):
    """Tables of every sharding type, each with candidates."""
    rng, tables = random.Random(seed), {}
    for number in range(count):
        rows, width = rng.randrange(10_000, 30_000_000), rng.choice([16, 32])
        kind = rng.choice(["table_wise", "column_wise", "column_wise", "row_wise", "table_row_wise", "data_parallel"])
        parts = {"row_wise": ranks, "table_row_wise": 8}.get(kind, 1)
        block, first = -(-rows // parts), rng.randrange(ranks // 8) * 8 if kind == "table_row_wise" else 0
        shards = [(min(i * block, rows), 0, max(min(block, rows - i * block), 0), 64, first + i) for i in range(parts)]
        if kind == "column_wise":
            shards = [(0, column, rows, width, rng.randrange(ranks)) for column in range(0, 64, width)]
        elif kind == "table_wise":
            shards = [(0, 0, rows, 64, rng.randrange(ranks))]
        elif kind == "data_parallel":
            rows, shards = rng.randrange(10, 1000), []
        tried = [
            {"what": f"kind {i} of {rng.randrange(20)}", "shards": rng.randrange(1, ranks), "shard_ms": round(rng.random(), 6)}
            | {"all_ms": round(rng.random(), 6), "bytes": rng.randrange(10**10), "plan_ms": round(5 + i * rng.random(), 6), "chosen": not i}
            for i in range(10)
        ]
        name = EVIL if number == 3 else f"feature_{number}"
        tables[name] = table(rows, 64, kind, *shards) | {"decided": f"next best {rng.random()}", "tried": tried}
    return plan_of(tables, cluster, batch_size=131072)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as one:
        yield one


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    figures = figures_of(made(BIG, "128x8:h100", RANKS), "test")
    path = tmp_path_factory.mktemp("page") / "big.html"
    path.write_text(Document(f"Plan {EVIL}", [explorer([(figures, figures.tables, "")])]).html(), encoding="utf-8")
    return figures, path


@pytest.fixture
def opened(browser, big):
    browser.errors.clear()
    browser.size(1280, 900)
    browser.open(big[1])
    yield browser, big[0]
    assert not browser.errors
    assert browser.requests == [big[1].as_uri()]
    assert browser.js("document.title") == f"Plan {EVIL}"


def cell(browser, figures, name, rank):
    """The first whole pixel of a table's cell in the heat-map, in the window: clicks have no others."""
    row = browser.texts("#tables tbody td:first-child").index(name)
    browser.js("document.querySelector('.map').scrollIntoView({block: 'center'})")
    browser.js(f"document.querySelector('.map').scrollTop = {row} * heats[0].height - 100")
    left, top = browser.js("(r => [r.left, r.top])(document.querySelector('#map canvas').getBoundingClientRect())")
    height, gutter, span = browser.js("[heats[0].height, gutter(), heats[0].span]")
    return math.ceil(left + gutter + rank * span / figures.cluster.ranks), math.ceil(top + row * height)


def test_a_thousand_tables_on_a_thousand_ranks_are_less_than_two_megabytes(big):
    assert big[1].stat().st_size < 2e6


def test_a_table_is_found_by_a_part_of_its_name(opened):
    browser, _ = opened
    assert len(browser.texts("#tables tbody tr")) == BIG
    browser.press("/")
    browser.write("FEATURE_99")
    assert browser.texts("#tables tbody td:first-child") == ["feature_99", *(f"feature_99{i}" for i in range(10))]
    assert browser.text("#found").startswith("11 of 1,000")
    assert browser.js("heats[0].entries.length") == 11


def test_a_click_on_a_column_sorts_and_a_second_one_turns_it_round(opened):
    browser, figures = opened
    names = [one.name for one in sorted(figures.tables, key=lambda one: one.rows)]
    sizes = {f"{one.rows:,}" for one in figures.tables}
    assert len(sizes) > 900
    rows = "[...document.querySelectorAll('#tables tbody td:nth-child(2)')].map(one => Number(one.textContent.replaceAll(',', '')))"
    for direction in ("descending", "ascending"):
        browser.click_on("#tables th:nth-child(2) button")
        found = browser.js(rows)
        assert found == sorted((one.rows for one in figures.tables), reverse=direction == "descending")
        assert browser.js("document.querySelector('#tables th:nth-child(2)').getAttribute('aria-sort')") == direction
    assert browser.texts("#tables tbody td:first-child")[-1] == names[-1]
    # The heat-map's rows follow.
    assert browser.js("heats[0].entries.at(-1).name") == names[-1]


def test_pointing_at_a_cell_tells_its_figures(opened):
    browser, figures = opened
    for name in ("feature_7", EVIL):
        index = figures.prediction.tables.index(name)
        rank = int(figures.prediction.memory[index].argmax())
        browser.move(*cell(browser, figures, name, rank))
        told = browser.text("#map output")
        assert told.startswith(f"{name} on rank {rank}: {figures.prediction.time[index, rank]:.3f} ms")


@pytest.mark.parametrize("metric", ["time", "memory", "sent"])
def test_the_drawing_has_a_colour_where_the_prediction_has_a_value(opened, metric):
    browser, figures = opened
    browser.js(f"metric.value = '{metric}'; metric.dispatchEvent(new Event('change'))")
    grids = {"time": figures.prediction.time, "memory": figures.prediction.memory, "sent": figures.prediction.sent}
    sampled = range(0, BIG, 50)
    for row in sampled:
        values = browser.js(f"[...rowOf(PLANS[0], {row}, '{metric}')]")
        np.testing.assert_allclose(values, grids[metric][row], rtol=1e-6, atol=1)
    # An empty cell of the drawing is the page's own colour, others are not.
    pixel = "(x, y) => [...document.querySelector('#map canvas').getContext('2d').getImageData(x, y, 1, 1).data]"
    height, gutter, span = browser.js("[heats[0].height, gutter(), heats[0].span]")
    empty = [[], []]
    for row in sampled:
        for rank in range(5, RANKS, 97):
            # One that no neighbour shares a pixel with, and no dashed line.
            near = grids[metric][row, rank - 2 : rank + 3] > 0
            if near.all() or not near.any():
                x, y = int(gutter + (rank + 0.5) * span / RANKS), int((row + 0.5) * height)
                empty[bool(near.any())].append(browser.js(f"({pixel})({x}, {y})")[3] == 0 or rank == figures.critical)
    assert all(empty[0])
    assert not any(empty[1])
    assert empty[1]


def test_a_table_s_panel_has_its_candidates_and_a_rank_s_what_it_holds(opened):
    browser, figures = opened
    one = next(one for one in figures.tables if one.name == EVIL)
    browser.press("/")
    browser.write(EVIL[:20])
    browser.click_on("#tables tbody td:first-child button")
    assert browser.text("#panel h2") == EVIL
    assert browser.text("#panel p") == one.decided
    tried = browser.texts("#panel tbody td:first-child")
    assert tried == [f"{row['what']}{' (chosen)' * row['chosen']}" for row in one.tried]
    assert browser.js("location.hash").startswith("#table=")
    browser.press("Escape")
    assert browser.js("panel.hidden")
    assert browser.js("document.activeElement.textContent") == EVIL
    browser.click_on("#ranks tbody tr:nth-child(6) button")
    assert browser.text("#panel h2") == "Rank 5"
    held = browser.texts("#panel tbody td:first-child")
    memory = figures.prediction.memory[:, 5]
    assert sorted(held) == sorted(name for name, size in zip(figures.prediction.tables, memory, strict=True) if size > 0)


def test_a_click_on_a_cell_opens_its_table_and_with_shift_its_rank(opened):
    browser, figures = opened
    where = cell(browser, figures, "feature_7", 800)
    browser.click(*where, shift=True)
    assert browser.text("#panel h2") == "Rank 800"
    browser.press("Escape")
    browser.click(*cell(browser, figures, "feature_7", 100))
    assert browser.text("#panel h2") == "feature_7"


def test_the_heat_map_can_be_walked_by_keys_and_says_where_one_is(opened):
    browser, _ = opened
    browser.js("document.querySelector('#map canvas').focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):
        browser.press(key)
    assert browser.text("#map output").startswith("feature_1 on rank 2:")
    assert browser.js("document.querySelector('#map output').getAttribute('aria-live')") == "polite"
    browser.press("r")
    assert browser.text("#panel h2") == "Rank 2"
    browser.press("Escape")
    browser.press("Enter")
    assert browser.text("#panel h2") == "feature_1"


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_no_page_is_wider_than_its_window(opened, width, dark):
    browser, _ = opened
    browser.size(width, 900, dark)
    browser.js("openRank(3)")
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    assert browser.js("(r => r.left >= 0 && r.right <= innerWidth)(panel.getBoundingClientRect())")


def test_two_plans_are_compared_table_by_table_and_rank_by_rank(browser, tmp_path):
    a, b = made(30, "2x8:h100", 16), made(30, "2x8:h100", 16)
    name = next(name for name, row in a["tables"].items() if row["sharding_type"] == "table_wise")
    b["tables"][name]["shards"][0]["rank"] = (b["tables"][name]["shards"][0]["rank"] + 1) % 16
    del b["tables"]["feature_0"]
    path = tmp_path / "diff.html"
    path.write_text(diff_document(difference(a, b, "a", "b"), "a", "b", page=True).html(), encoding="utf-8")
    browser.errors.clear()
    browser.open(path, f"#table={name}")
    assert browser.text("#panel h2") == name
    assert browser.texts("#panel h3")[::2] == ["A a", "B b"]
    assert "moved" in browser.text("#panel p")
    assert browser.texts("tr.changed td:first-child") == [name]
    assert browser.js("[heats[0].entries.length, heats[1].entries.length]") == [30, 29]
    browser.js(f"openTable({json.dumps('feature_0')})")
    assert "has no such table" in browser.text("#panel")
    assert not browser.errors
