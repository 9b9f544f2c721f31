"""What a plan is shown as: true to its shards, within 100 columns, folded on many ranks, and by name."""

import pytest

from dmoe.errors import UserError
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.report.show import View, as_data, plan_document
from dmoe.sharding.plan.report.show_words import compact, ranks_in
from tests.unit.sharding.small_plans import plan_of, table

WIDE = "a_feature_with_a_name_that_goes_on_and_on_and_would_push_all_else_off_the_page_" * 2


def lines(plan, **view):
    return plan_document(figures_of(plan, "test"), View(**view)).text().splitlines()


def on_ranks(count, kernel="fused"):
    return {
        f"T{rank}": table(1000 * (rank + 1), 16, "table_wise", (0, 0, 1000 * (rank + 1), 16, rank), kernel=kernel) for rank in range(count)
    }


def test_a_shard_moved_by_hand_moves_its_bytes_and_its_time():
    plan = plan_of(on_ranks(2))
    before = figures_of(plan, "test")
    plan["tables"]["T0"]["shards"][0]["rank"] = 1
    after = figures_of(plan, "test")
    assert [rank.weights for rank in before.ranks] == [64_000, 128_000]
    assert [rank.weights for rank in after.ranks] == [0, 192_000]
    assert [rank.state for rank in after.ranks] == [0, 192_000]
    assert after.critical == 1
    assert after.time_ms > before.time_ms
    assert after.ranks[0].time_ms == 0 == after.ranks[0].tables


def test_what_is_taken_reserved_and_free_is_the_whole_memory():
    figures = figures_of(plan_of(on_ranks(2), "1x2:h100"), "test")
    for rank in figures.ranks:
        assert rank.memory + rank.reserved + rank.free == figures.cluster.memory
        assert figures.headroom(rank) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("cluster", ["1x2:cpu", "2x2:h100", "16x8:h100"])
@pytest.mark.parametrize("view", [{}, {"why": "*"}, {"ranks": "all"}])
def test_no_line_is_wider_than_100_columns(cluster, view):
    tables = on_ranks(2, "fused_uvm_caching" if "h100" in cluster else "fused")
    tables[WIDE] = table(2_000_000_000, 4096, "table_wise", (0, 0, 2_000_000_000, 4096, 1))
    tables["T0"] |= {"decided": f"next best {WIDE}", "tried": [tried(WIDE, 1e7, True), tried("table_wise", None, False)]}
    assert max(len(line) for line in lines(plan_of(tables, cluster), **view)) <= 100


def tried(what, plan_ms, chosen):
    return {"what": what, "shards": 8192, "shard_ms": 1e6, "all_ms": 1e9, "bytes": 10**15, "plan_ms": plan_ms, "chosen": chosen}


def test_many_ranks_are_folded_with_the_worst_the_median_and_the_best():
    tables = on_ranks(128)
    # Wider tables on later ranks of each 32, so that ranks take different times; rank 77 has the most of them.
    for rank in range(128):
        for number in range(3 if rank != 77 else 40):
            tables[f"X{rank}_{number}"] = table(10, 4 * (rank % 32 + 1), "table_wise", (0, 0, 10, 4 * (rank % 32 + 1), rank))
    figures = figures_of(plan_of(tables, "16x8:h100"), "test")
    told = plan_document(figures).text().splitlines()
    by_time = sorted(figures.ranks, key=lambda rank: rank.time_ms)
    marked = {
        word: int(line.split()[0]) for line in told for word in ("critical", "median", "fastest") if " ms  #" in line and word in line
    }
    assert marked["critical"] == figures.critical == by_time[-1].rank == 77
    assert figures.ranks[marked["fastest"]].time_ms == by_time[0].time_ms
    assert figures.ranks[marked["median"]].time_ms == pytest.approx(by_time[64].time_ms, rel=0.05)
    histogram = [line for line in told if line.startswith("  to ")]
    assert sum(int(line.split()[3]) for line in histogram) == 128
    assert len(told) < len(tables) + 40
    chosen = plan_document(figures, View(ranks="8-9,100")).text().splitlines()
    assert [line.split()[0] for line in chosen if " ms  #" in line] == ["8", "9", "100"]


def test_tables_are_sorted_filtered_and_cut():
    plan = plan_of(on_ranks(2) | {"B1": table(10, 64, "data_parallel")})
    figures = figures_of(plan, "test")

    def names(**view):
        return [row["name"] for row in as_data(figures, View(**view))["tables"]]

    assert names() == ["T1", "T0", "B1"]
    assert names(sort="name") == ["B1", "T0", "T1"]
    assert names(sort="time")[0] == max(figures.tables, key=lambda table: table.time_ms).name
    assert names(sort="sent")[0] == max(figures.tables, key=lambda table: table.sent).name
    assert names(tables="T*", top=1) == ["T1"]
    assert [row["rank"] for row in as_data(figures, View(ranks="1"))["ranks"]] == [1]
    assert lines(plan, top=2)[-1].split() == ["and", "1", "more", "5.12", "kB"]


def test_a_data_parallel_table_counts_once_by_size_and_everywhere_by_rank():
    figures = figures_of(plan_of({"B": table(10, 64, "data_parallel")}), "test")
    assert (figures.tables[0].weights, figures.tables[0].state) == (2560, 2560)
    assert [rank.weights for rank in figures.ranks] == [2560, 2560]


def test_why_says_what_the_alternatives_cost_and_which_do_not_fit():
    tables = on_ranks(2)
    tables["T0"] |= {
        "decided": "nothing else fits",
        "tried": [tried("table_wise", 2.0, True), tried("row_wise", 3.5, False), tried("x", None, False)],
    }
    told = "\n".join(lines(plan_of(tables), why="T0"))
    assert "nothing else fits" in told
    assert "3.500 ms  +1.500" in told
    assert "does not fit" in told
    assert "keeps no alternatives" in "\n".join(lines(plan_of(tables), why="T1"))


def test_mistakes_are_named():
    plan = plan_of(on_ranks(2))
    with pytest.raises(UserError, match=r"--tables T11: .*'T1'"):
        lines(plan, tables="T11")
    with pytest.raises(UserError, match=r"rank 2, .*0 .*1"):
        lines(plan, ranks="0-2")
    with pytest.raises(UserError, match=r"--ranks.*3-1.* 0-7,12"):
        lines(plan, ranks="3-1")
    del plan["room"]
    with pytest.raises(UserError, match="room"):
        lines(plan)


def test_lists_of_ranks_are_told_in_the_room_there_is():
    assert compact([0, 1, 2, 5, 7, 8], 16, 20) == "0-2, 5, 7, 8"
    assert compact([0, 1, 2, 5, 7, 8], 16, 9) == "6 in 0-8"
    assert compact([0, 1, 2, 5, 7, 8], 16, 4) == "6"
    assert compact([0, 1], 2, 9) == "all"
    assert ranks_in("3,0-1", 4) == [0, 1, 3]
