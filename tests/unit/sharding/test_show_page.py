"""The page of a plan: its data are the figures, names of tables are no markup, nothing is fetched.

Its script runs in tests/endtoend/test_plan_page.py.
"""

import base64
import hashlib
import json
import re

import numpy as np
import pytest

from dmoe.report.document import Document
from dmoe.sharding.plan.report.diff import diff_document, difference
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.report.show import plan_document
from dmoe.sharding.plan.report.show_page import explorer
from tests.unit.sharding.small_plans import plan_of, table

TRIED = {"shards": 1, "shard_ms": 1.0, "all_ms": 1.0, "bytes": 4096}
EVIL = "</script><script>alert(1)</script>'\"&ñ\u2028"[:-1]
METRICS = ("time", "memory", "sent", "weights")


def made(count=5, cluster="2x2:h100", kind="table_wise"):
    tables = {f"T{i}": table(1000 * (i + 1), 16, "table_wise", (0, 0, 1000 * (i + 1), 16, i % 4)) for i in range(count)}
    tables["cut"] = table(4000, 64, "column_wise", *((0, 16 * i, 4000, 16, 3 - i) for i in range(4)))
    tables["rows"] = table(4001, 16, "row_wise", *((1001 * i, 0, min(1001, 4001 - 1001 * i), 16, i) for i in range(4)))
    tables["host"] = table(1001, 16, "table_row_wise", (0, 0, 501, 16, 2), (501, 0, 500, 16, 3))
    tables[EVIL] = table(50, 16, "data_parallel") | {
        "decided": "next best row_wise",
        "tried": [
            TRIED | {"what": "data_parallel", "plan_ms": 1.0, "chosen": True},
            TRIED | {"what": "row_wise", "plan_ms": 1.25, "chosen": False},
            TRIED | {"what": "table_wise", "plan_ms": None, "chosen": False},
        ],
    }
    return plan_of(tables, cluster)


def page(figures, tables=None):
    return Document(f"A plan {EVIL}", [explorer([(figures, tables or figures.tables, "")])]).html()


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def unpacked(plan, metric):
    """[tables, ranks] of the classes of cells, as explore/data.js reads them."""
    grid = np.zeros((len(plan["tables"]["name"]), plan["ranks"]))
    for index, classes in enumerate(plan["tables"]["cells"]):
        grid[index] = classes[0][1 + METRICS.index(metric)]
        for ranks, *values in classes[1:]:
            for part in ranks.split(","):
                first, last = (part.split("-") * 2)[:2]
                grid[index, int(first) : int(last) + 1] = values[METRICS.index(metric)]
    return grid


def test_the_cells_of_the_page_are_those_of_the_prediction():
    figures = figures_of(made(), "test")
    (plan,) = data_of(page(figures))["plans"]
    grids = figures.prediction
    assert plan["tables"]["name"] == list(grids.tables)
    np.testing.assert_allclose(unpacked(plan, "time"), grids.time, atol=5e-7)
    np.testing.assert_allclose(unpacked(plan, "memory"), grids.memory + grids.host, atol=0.5)
    np.testing.assert_allclose(unpacked(plan, "sent"), grids.sent, atol=0.5)
    np.testing.assert_allclose(unpacked(plan, "weights"), grids.weights, atol=0.5)
    assert plan["rank"]["tables"] == [one.tables for one in figures.ranks]
    assert plan["critical"] == figures.critical


def test_names_are_text_and_only_the_page_s_own_script_may_run():
    figures = figures_of(made(), "test")
    text = page(figures)
    assert "alert(1)</script>" not in text
    assert EVIL in data_of(text)["plans"][0]["tables"]["name"]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in text
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)\s*=|innerHTML|https?://|document\.write|\beval\b""", text)


def test_tables_that_are_left_out_are_not_listed_but_count_in_the_ranks():
    figures = figures_of(made(), "test")
    (plan,) = data_of(page(figures, figures.tables[:2]))["plans"]
    assert plan["tables"]["name"] == ["T0", "T1"]
    assert plan["rank"]["time"] == pytest.approx([one.time_ms for one in figures.ranks])


def test_a_page_says_how_far_from_the_best_its_plan_can_be():
    kept = made()
    time_ms = figures_of(kept, "test").time_ms
    kept["predicted"] = {"bound_ms": time_ms / 1.25}
    figures = figures_of(kept, "test")
    assert "25.0% above a lower bound" in plan_document(figures, page=True).html()
    assert "lower bound" not in plan_document(figures_of(made(), "test"), page=True).html()


def test_tables_that_are_alike_share_what_was_tried():
    kept = made()
    kept["tables"]["T0"] |= {key: kept["tables"][EVIL][key] for key in ("decided", "tried")}
    figures = figures_of(kept, "test")
    (plan,) = data_of(page(figures))["plans"]
    place = {name: plan["tables"]["tried"][index] for index, name in enumerate(plan["tables"]["name"])}
    assert place["T0"] == place[EVIL] != place["T1"]
    assert plan["tried"][place["T1"]] == []
    assert [(plan["words"][row[0]], row[4], row[5]) for row in plan["tried"][place[EVIL]]] == [
        ("data_parallel", 1.0, 1),
        ("row_wise", 1.25, 0),
        ("table_wise", None, 0),
    ]


def test_two_plans_lie_beside_one_another_with_what_moves():
    a, b = made(), made()
    b["tables"]["T0"]["shards"][0]["rank"] = 3
    del b["tables"]["T1"]
    found = difference(a, b, "a", "b")
    data = data_of(diff_document(found, "a.json", "b.json", page=True).html())
    assert [plan["label"] for plan in data["plans"]] == ["A a.json", "B b.json"]
    assert data["changes"] == {"T0": {"what": "moved", "moved": found.changed[0].moved}}
    assert "T1" not in data["plans"][1]["tables"]["name"]
