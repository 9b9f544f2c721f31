"""The page of a plan: whole, without the network, its drawings true, names of tables no markup."""

import re

import numpy as np
import pytest

from dmoe.sharding.plan import show_page
from dmoe.sharding.plan.plan_stats import figures_of
from tests.unit.sharding.small_plans import plan_of, table

TRIED = {"shards": 1, "shard_ms": 1.0, "all_ms": 1.0, "bytes": 4096}


def figures(count=5, cluster="1x2:h100"):
    tables = {f"T{i}": table(1000 * (i + 1), 16, "table_wise", (0, 0, 1000 * (i + 1), 16, i % 2)) for i in range(count)}
    tables["<b>$x_{$&"] = table(50, 16, "data_parallel") | {
        "decided": "next best row_wise",
        "tried": [
            TRIED | {"what": "data_parallel", "plan_ms": 1.0, "chosen": True},
            TRIED | {"what": "row_wise", "plan_ms": 1.25, "chosen": False},
            TRIED | {"what": "table_wise", "plan_ms": None, "chosen": False},
        ],
    }
    return figures_of(plan_of(tables, cluster), "test")


def test_the_page_is_whole_and_names_the_critical_rank_every_table_and_why():
    found = figures()
    text = show_page.page(found, found.tables, "A plan")
    assert text.count("<svg") == 4
    assert text.count("<details>") == len(found.tables)
    assert f"Critical rank {found.critical}: {found.time_ms:.3f} ms" in text
    assert all(f"<td>{one.name}</td>" in text for one in found.tables if one.name.startswith("T"))
    assert "<b>" not in text
    assert "&lt;b&gt;$x_{$&amp;" in text
    assert "+0.250" in text
    assert "does not fit" in text
    assert not re.search(r"(src|href)=['\"]https?:|<script", text)


def test_many_tables_share_the_heat_maps_last_row_and_nothing_is_lost(monkeypatch):
    found, drawn = figures(100), {}

    def catch(width, height, paint):
        from matplotlib.figure import Figure

        axes = Figure().add_subplot()
        paint(axes)
        if axes.images:
            drawn[axes.get_title().split(",")[0]] = (axes.images[0].get_array(), [label.get_text() for label in axes.get_yticklabels()])
        return "<svg/>"

    monkeypatch.setattr(show_page, "draw", catch)
    show_page.heat_maps(found)
    times, names = drawn["Predicted time"]
    assert times.shape == (show_page.ROWS + 1, 2)
    assert names[0] == "T99"
    assert names[-1] == "41 smaller"
    assert np.asarray(times.filled(0)).sum(0) == pytest.approx([rank.time_ms for rank in found.ranks], rel=1e-4)
    # T99 lies on rank 1 alone.
    assert times.mask[0].tolist() == [True, False]
