"""Every page in a browser: sorted, filtered, pointed at, series turned off; no error, nothing fetched, users' texts are texts."""

import numpy as np
import pytest

from tests.endtoend.browser import PROGRAM, Browser
from tests.endtoend.needs import or_skip
from tests.endtoend.views import EVIL, pages
from tests.unit.report.test_expert_slices import run_with

pytestmark = [pytest.mark.slow, or_skip("CHROMIUM", None if PROGRAM else "no chromium: run .ci/install_chromium.sh")]
NAMES = ["runs", "experts", "compare", "ladder", "frontier", "describe", "ab", "online", "sweep", "check", "accept"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as one:
        yield one


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pages"), np.random.default_rng(0)
    gate = rng.dirichlet([1, 2, 1], 6).astype(np.float32)
    run = run_with(folder, expert_logit=rng.normal(size=(6, 3)).astype(np.float32), gate=gate)
    for name, page in pages(folder, run).items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


SHOWN = (
    "[...document.querySelectorAll('.table:has(tr:nth-child(20)) tbody tr')]"
    ".filter(row => !row.hidden).map(row => row.cells[{c}].textContent)"
)
VALUES = "[...document.querySelectorAll('.table')[{t}].querySelectorAll('tbody tr')].map(row => row.cells[{c}].dataset.v)"


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_worked_with(browser, made, name):
    path = made / f"{name}.html"
    assert path.stat().st_size < 2e6
    browser.errors.clear()
    browser.size(1280, 900)
    browser.open(path)
    # A click on a heading of figures sorts by them, a second one turns the order round.
    table, column = browser.js(
        "(() => { for (const [t, box] of document.querySelectorAll('.table').entries())"
        " for (const cell of box.querySelectorAll('thead th'))"
        " if (new Set([...box.querySelectorAll('tbody tr')].map(row => row.cells[cell.cellIndex].dataset.v)).size > 1)"
        " return [t, cell.cellIndex] })()"
    )
    head = f"document.querySelectorAll('.table')[{table}].querySelectorAll('thead th')[{column}]"
    browser.js(f"{head}.id = 'sorted'")
    for direction in ("descending", "ascending"):
        browser.click_on("#sorted button")
        assert browser.js(f"{head}.getAttribute('aria-sort')") == direction
        found = [float(value) for value in browser.js(VALUES.format(t=table, c=column)) if value is not None]
        assert found == sorted(found, reverse=direction == "descending")
    assert browser.js("document.querySelectorAll('table:not(:has(caption)), thead th:not([scope=col])').length") == 0
    for width in (1280, 400):
        browser.size(width, 900, dark=width == 400)
        assert browser.js("document.documentElement.scrollWidth <= innerWidth"), width
    # Users' texts are texts, on the page and in what a chart says.
    assert EVIL in browser.js("document.body.textContent")
    assert browser.js("document.scripts.length") == 1
    assert not browser.errors
    assert browser.requests == [path.as_uri()]


def test_rows_are_found_by_a_part_of_their_text(browser, made):
    browser.size(1280, 900)
    browser.open(made / "describe.html")
    browser.click_on(".table:has(tr:nth-child(20)) input")
    browser.write("ñ 2")
    assert browser.js(SHOWN.format(c=0)) == [f"{EVIL} {n}" for n in (2, *range(20, 26))]
    assert browser.text(".table:has(tr:nth-child(20)) [role=status]") == "7 of 26 rows"


def test_an_expert_s_name_leads_to_its_slices(browser, made):
    browser.open(made / "runs.html")
    browser.click_on("a[data-table]")
    shown = browser.js(SHOWN.format(c=3))
    assert set(shown) == {"0 mlp"}
    assert len(shown) == 6


def test_a_variant_is_turned_off_in_all_curves_and_points_tell_their_values(browser, made):
    browser.open(made / "runs.html")
    dots = "[...document.querySelectorAll('svg .s')].map(one => [one.dataset.name, getComputedStyle(one).display])"
    assert {display for _, display in browser.js(dots)} == {"inline"}
    browser.click_on(".legend button:nth-child(2)")
    assert {tuple(one) for one in browser.js(dots)} == {(f"{EVIL} 0", "inline"), (f"{EVIL} 1", "none")}
    assert browser.js("document.querySelector('.legend button:nth-child(2)').ariaPressed") == "false"
    x, y, width, height = browser.place("svg .s circle")
    browser.move(x + width / 2, y + height / 2)
    assert browser.text(".chart output") == f"{EVIL} 0: step 1, logloss 0.699"
    browser.js("document.querySelector('svg').focus()")
    browser.press("End")
    assert browser.text(".chart output").startswith(f"{EVIL} 0: step 199, logloss 0.501")
    assert browser.js("document.querySelector('.chart output').ariaLive") == "polite"
