"""A plan that was edited by hand: what TorchRec would read other rows by, or hang on, is refused in a line that names the shard."""

import copy

import pytest

from dmoe.errors import UserError
from dmoe.sharding.plan.plan_file import as_text, check_plan, read_plan
from dmoe.sharding.plan.shard_layout import blocks
from tests.unit.sharding.small_plans import plan_of, table

TABLES = {
    "R": table(10, 8, "row_wise", (0, 0, 3, 8, 0), (3, 0, 3, 8, 1), (6, 0, 3, 8, 2), (9, 0, 1, 8, 3)),
    "C": table(5, 12, "column_wise", (0, 0, 5, 4, 3), (0, 4, 5, 8, 0)),
    "T": table(5, 7, "table_wise", (0, 0, 5, 7, 2)),
    "H": table(5, 8, "table_row_wise", (0, 0, 3, 8, 2), (3, 0, 2, 8, 3)),
    "N": table(5, 8, "table_column_wise", (0, 0, 5, 4, 1), (0, 4, 5, 4, 0)),
    "G": table(5, 8, "grid_shard", (0, 0, 3, 4, 0), (3, 0, 2, 4, 1), (0, 4, 3, 4, 2), (3, 4, 2, 4, 3)),
    "D": table(4, 8, "data_parallel"),
}


def sound():
    return copy.deepcopy(plan_of(TABLES, "2x2:cpu"))


def placed(name, *shards):
    """A table's entry with other shards."""
    entry = TABLES[name]
    return table(*entry["size"], entry["sharding_type"], *shards)


def test_a_sound_plan_of_every_type_is_read_as_it_was_written(tmp_path):
    (tmp_path / "plan.json").write_text(as_text(sound()))
    assert read_plan(str(tmp_path / "plan.json")) == sound()


@pytest.mark.parametrize("kind", sorted({entry["sharding_type"] for entry in TABLES.values()} - {"data_parallel"}))
@pytest.mark.parametrize("rows", [1, 3, 4, 9, 10, 1000])
def test_what_torchrec_cuts_is_accepted(kind, rows):
    import torch
    from torchrec.distributed.sharding_plan import calculate_shard_sizes_and_offsets

    weight = torch.empty(rows, 24, device="meta")
    sizes, offsets = calculate_shard_sizes_and_offsets(weight, 4, 2, kind, 8 if "column" in kind or kind == "grid_shard" else None)
    firsts = {"table_wise": [3], "column_wise": [3, 0, 0], "table_column_wise": [1, 0, 1], "table_row_wise": [2, 3]}
    ranks = firsts.get(kind, [0, 1, 2, 3, 0, 1] if kind == "grid_shard" else [0, 1, 2, 3])
    # Of an empty shard TorchRec may name a place beyond the table; nothing lies there.
    cuts = [(min(row, rows), column, *size, rank) for (row, column), size, rank in zip(offsets, sizes, ranks, strict=True)]
    check_plan(plan_of({"A": table(rows, 24, kind, *cuts)}, "2x2:cpu"), "plan.json")


@pytest.mark.parametrize(("rows", "sizes"), [(10, [3, 3, 3, 1]), (8, [2, 2, 2, 2]), (3, [1, 1, 1, 0]), (5, [2, 2, 1, 0])])
def test_blocks(rows, sizes):
    cut = blocks(rows, 4)
    assert [height for _, height in cut] == sizes
    assert [first for first, _ in cut] == [sum(sizes[:part]) for part in range(4)]


def gap(kind, number, what, sizes):
    return f"shard {number} is {what}; {kind} shards are in order, without a gap, and of {sizes} rows on 2x2:cpu"


REFUSED = {
    "uneven rows": ("R", [(0, 0, 1, 8, 0), (1, 0, 3, 8, 1), (4, 0, 3, 8, 2), (7, 0, 3, 8, 3)],
                    gap("row_wise", 0, "1 x 8 from row 0, column 0", "1 or 3")),
    "swapped rows": ("R", [(3, 0, 3, 8, 0), (0, 0, 3, 8, 1), (6, 0, 3, 8, 2), (9, 0, 1, 8, 3)],
                     gap("row_wise", 0, "3 x 8 from row 3, column 0", "1 or 3")),
    "swapped ranks": ("R", [(0, 0, 3, 8, 1), (3, 0, 3, 8, 0), (6, 0, 3, 8, 2), (9, 0, 1, 8, 3)],
                      "row_wise has one shard on every rank, in their order"),
    "a rank without rows": ("R", [(0, 0, 4, 8, 0), (4, 0, 4, 8, 1), (8, 0, 2, 8, 2)],
                            "row_wise has one shard on every rank, in their order"),
    "rows twice": ("R", [(0, 0, 3, 8, 0), (3, 0, 3, 8, 1), (3, 0, 3, 8, 2), (9, 0, 1, 8, 3)],
                   gap("row_wise", 2, "3 x 8 from row 3, column 0", "1 or 3")),
    "rows cut short": ("R", [(0, 0, 3, 4, 0), (3, 0, 3, 4, 1), (6, 0, 3, 4, 2), (9, 0, 1, 4, 3)], "its shards cover 4 of 8 columns"),
    "width 3": ("C", [(0, 0, 5, 3, 3), (0, 3, 5, 9, 0)],
                "shard 0 has 3 columns; a part of a row has a multiple of 4, which the kernels need"),
    "columns twice": ("C", [(0, 0, 5, 8, 3), (0, 4, 5, 8, 0)], gap("column_wise", 1, "5 x 8 from row 0, column 4", "5")),
    "columns left out": ("C", [(0, 0, 5, 4, 3), (0, 8, 5, 4, 0)], gap("column_wise", 1, "5 x 4 from row 0, column 8", "5")),
    "the last columns left out": ("C", [(0, 0, 5, 4, 3), (0, 4, 5, 4, 0)], "its shards cover 8 of 12 columns"),
    "no columns": ("C", [(0, 0, 5, 0, 3), (0, 0, 5, 12, 0)], gap("column_wise", 0, "5 x 0 from row 0, column 0", "5")),
    "rows of a column shard": ("C", [(0, 0, 4, 4, 3), (0, 4, 5, 8, 0)], gap("column_wise", 0, "4 x 4 from row 0, column 0", "5")),
    "no shard": ("C", [], "it has no shard"),
    "another rank": ("T", [(0, 0, 5, 7, 4)], "shard 0 is on rank 4, but 2x2:cpu has ranks 0 to 3"),
    "beyond": ("T", [(1, 0, 5, 7, 0)], "shard 0 reaches beyond the table's 5 x 7"),
    "two whole tables": ("T", [(0, 0, 5, 7, 0), (0, 0, 5, 7, 1)], "table_wise has one shard, found 2"),
    "two hosts": ("H", [(0, 0, 3, 8, 1), (3, 0, 2, 8, 2)], "table_row_wise has its shards on all ranks of a host, in their order"),
    "half a host": ("H", [(0, 0, 5, 8, 2)], "table_row_wise has its shards on all ranks of a host, in their order"),
    "a host's uneven rows": ("H", [(0, 0, 2, 8, 2), (2, 0, 3, 8, 3)], gap("table_row_wise", 0, "2 x 8 from row 0, column 0", "2 or 3")),
    "columns of rows": ("H", [(0, 0, 3, 4, 2), (3, 0, 2, 4, 3), (0, 4, 3, 4, 0), (3, 4, 2, 4, 1)], "table_row_wise does not cut columns"),
    "columns on two hosts": ("N", [(0, 0, 5, 4, 1), (0, 4, 5, 4, 2)], "table_column_wise has all shards on one host"),
    "a host's columns twice": ("N", [(0, 0, 5, 4, 1), (0, 0, 5, 4, 0)], gap("table_column_wise", 1, "5 x 4 from row 0, column 0", "5")),
    "a grid's rows first": ("G", [(0, 0, 3, 4, 0), (0, 4, 3, 4, 1), (3, 0, 2, 4, 2), (3, 4, 2, 4, 3)],
                            gap("grid_shard", 1, "3 x 4 from row 0, column 4", "2 or 3")),
    "a grid on a rank": ("G", [(0, 0, 3, 4, 0), (3, 0, 2, 4, 0), (0, 4, 3, 4, 2), (3, 4, 2, 4, 3)],
                         "grid_shard has its shards on all ranks of a host, in their order"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "shards", "message"), REFUSED.values(), ids=REFUSED)
def test_shards_that_lie_otherwise_are_refused(name, shards, message):
    plan = sound()
    plan["tables"][name] = placed(name, *shards)
    with pytest.raises(UserError) as refused:
        check_plan(plan, "plan.json")
    assert str(refused.value) == f"plan.json: table '{name}': {message}"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("world_size",), 2, "world_size is 2, but 2x2:cpu has 4 ranks; plan again"),
        (("tables", "T", "compute_kernel"), "dense", "table 'T': data_parallel tables have kernel dense and shards null, and no others do"),
        (("tables", "D", "shards"), [], "table 'D': data_parallel tables have kernel dense and shards null, and no others do"),
        (
            ("tables", "T", "compute_kernel"),
            "fused_uvm_caching",
            "table 'T': kernel fused_uvm_caching keeps rows in the host's memory beside a GPU, and 2x2:cpu has none",
        ),
    ],
)
def test_what_the_rest_of_a_plan_says_is_checked_too(path, value, message):
    plan = node = sound()
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(UserError) as refused:
        check_plan(plan, "plan.json")
    assert str(refused.value) == f"plan.json: {message}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("optimizer", "adagradd"),
        ("room", {"hbm": "much"}),
        ("hashes.model", 3),
        ("tables.T.size.0", 1 << 70),
        ("tables.T.size.1", 1 << 21),
        ("tables.T.size.0", 0),
        ("tables.T.batch_size", True),
        ("tables.T.sharding_type", "row_wize"),
        ("tables.T.shards.0.rank", True),
        ("tables.T.shards.0.row", -1),
    ],
)
def test_a_value_of_another_type_or_size_is_named_by_its_key(key, value):
    plan = node = sound()
    *above, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in above:
        node = node[part]
    node[last] = value
    with pytest.raises(UserError) as refused:
        check_plan(plan, "plan.json")
    assert str(refused.value).startswith(f"plan.json: {key}")
