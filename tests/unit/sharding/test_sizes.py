"""Sizes for people: none is negative, where a plan does not fit least of all."""

import re

import pytest

from dmoe.config.config import parse_config
from dmoe.model.budget.sizes import human, left
from dmoe.model.embedding.tables import Section, Table
from dmoe.sharding.plan import check
from dmoe.sharding.plan.report import diff, show
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planner import plan_tables
from dmoe.sharding.planner.room import DoesNotFit
from tests.unit.sharding.small_plans import plan_of, table

NEGATIVE = re.compile(r"-[\d.]+ (B|[kMGT]B)\b")


def test_what_is_missing_is_told_as_such():
    assert (left(1.5e9), left(0), left(-3.43e11)) == ("1.5 GB", "0 B", "343 GB short")
    assert NEGATIVE.search(human(-3.43e11))


@pytest.mark.parametrize("cluster", ["1x2:cpu", "2x2:h100"])
def test_a_plan_that_does_not_fit_is_shown_without_a_negative_size(cluster):
    over = plan_of({"T": table(2_000_000_000, 64, "table_wise", (0, 0, 2_000_000_000, 64, 1))}, cluster)
    fits = plan_of({"T": table(1000, 64, "table_wise", (0, 0, 1000, 64, 1))}, cluster)
    figures = figures_of(over, "over")
    shown = show.plan_document(figures, show.View(ranks="all"), page=True)
    views = {
        "show": shown.text(),
        "page": shown.html(),
        "check": "\n".join(check.as_lines(check.findings(figures, check.Limits()))),
        "diff": diff.diff_document(diff.difference(fits, over, "fits", "over"), "fits", "over").text(),
    }
    for name, text in views.items():
        assert not NEGATIVE.search(text), (name, NEGATIVE.search(text))
        assert "short" in text or "TOO MUCH" in text, name


@pytest.mark.parametrize("batch_size", [500_000_000, 100_000_000_000])
def test_a_batch_that_leaves_no_room_for_any_table_is_named(batch_size):
    tables = [Table(name=f"C{i}", module=f"t_C{i}", feature=f"C{i}", rows=1000, sections=(Section(0, 0, 64),)) for i in range(20)]
    config = parse_config(f"train: {{batch_size: {batch_size}}}", "test")
    with pytest.raises(DoesNotFit) as error:
        plan_tables(tables, config, parse_cluster("1x2:cpu"), dense_bytes=1000)
    assert "train.batch_size" in str(error.value)
    assert f"{batch_size // 2:,} rows a rank" in str(error.value)
    assert not NEGATIVE.search(str(error.value))
