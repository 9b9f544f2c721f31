"""A view is the same in text, HTML and JSON; what is left out of a chart or a table is what may be."""

import json
import math

import pytest

from dmoe.report.document import Bullets, Cell, Chart, Document, Figures, Forest, Heading, HeatMap, Note, Series, Table, in_columns
from dmoe.report.document.axis import Axis
from dmoe.report.document.html import _values
from dmoe.report.document.svg import thinned

EVIL = "<script>alert(1)</script>"
CHART = Chart(EVIL, "x", "y", [Series(EVIL, [1, 2, math.nan], [1, math.inf, 3])])
VIEW = Document(
    EVIL,
    [
        Heading("of nothing"),
        Bullets([]),
        Heading("Rows"),
        Table(["name", "bytes"], [["a", Cell("1.5 MB", value=1.5e6)], ["a", EVIL], [EVIL, "-"]], same=1),
        Note("page", only="page"),
        Note("text", only="text"),
        Figures(
            [Chart(EVIL, "x", "y", [Series(EVIL, [1, 2, math.nan], [1, math.inf, 3])]), Forest("f", "x", []), HeatMap("h", [[1.0]], [EVIL])]
        ),
    ],
)


def test_text_html_and_json_have_the_same_rows():
    page, data, text = VIEW.html(), VIEW.data(), VIEW.text()
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 8
    assert "of nothing" not in page
    assert [block["kind"] for block in data["blocks"]] == ["heading", "table", "note", "figures"]
    assert data["blocks"][1]["rows"] == [["a", 1.5e6], ["a", EVIL], [EVIL, "-"]]
    assert [one["kind"] for one in data["blocks"][-1]["charts"]] == ["chart", "heatmap"]
    json.dumps(data, allow_nan=False)
    assert [line.split() for line in text.splitlines()[2:4]] == [["a", "1.5", "MB"], [EVIL]]
    assert text.endswith("\n\ntext")


def test_a_table_that_is_too_wide_loses_letters_of_names_and_none_of_figures():
    rows = [["n" * 200, "1,234.5", "w" * 30], ["short", "2", "w"]]
    lines = list(in_columns(["name", "figure", "words"], rows, words=(0, 2), width=80))
    assert max(map(len, lines)) == 80
    assert "1,234.5" in lines[1]
    # Where names cannot make room, nothing is lost.
    assert max(map(len, in_columns(["name", "figures"], [["n" * 30, "1" * 90]], width=80))) == 122


def test_a_column_is_sorted_by_its_numbers_and_one_of_words_by_its_words():
    assert _values(["2.5 kB", "1 MB", "-", "too few"], words=False) == [2500.0, 1e6, None, None]
    assert _values(["2 a", "10"], words=True) == [None, None]
    assert _values(["2", "10", "-"], words=True) == [2.0, 10.0, None]


def test_a_curve_of_many_points_keeps_its_ends_and_extremes():
    points = [(float(x), math.sin(x / 500), 0.0, 0.0) for x in range(20_000)]
    points[7777] = (7777.0, 99.0, 0.0, 0.0)
    kept = thinned(points, 300)
    assert len(kept) <= 310
    assert kept == sorted(kept)
    assert {points[0], points[7777], points[-1]} <= set(kept)


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (-3e-9, 2e-9, False), (5, 5, False), (1, 1e12, True), (7, 7.5, True), (1e-300, 1e15, True)]
)
def test_an_axis_has_a_few_labels_that_tell_its_values_apart(low, high, log):
    ticks = Axis(low, high, log, 0, 500).ticks()
    assert 2 <= len(ticks) <= 12
    assert len({name for _, name in ticks}) == len(ticks)
    assert all(-1 <= Axis(low, high, log, 0, 500).at(value) <= 501 for value, _ in ticks)
