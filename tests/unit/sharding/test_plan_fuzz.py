"""Plan files with parts changed, doubled or cut off: refused in a line, or sound by a check that shares no code with ours."""

import contextlib
import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from dmoe.errors import UserError
from dmoe.sharding.plan.plan_file import as_text, read_plan
from dmoe.sharding.plan.report.plan_stats import figures_of
from tests.unit.sharding.test_cuts import sound

# No shrinking: with it, one failure costs minutes.
FUZZ = settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
TEXT = as_text(sound())
ODD = [
    "NaN",
    "-Infinity",
    "1e999",
    "1e3",
    "-1",
    "-0",
    "0",
    "3",
    "1.5",
    "4.0",
    "true",
    "null",
    '""',
    '"4"',
    "[]",
    "{}",
    str(1 << 70),
    "9" * 5000,
]


@st.composite
def damaged(draw):
    """The file with one to three numbers, words, lines or ends of it changed."""
    text = TEXT
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["number", "number", "word", "swap", "twice", "drop", "cut", "byte"]))
        lines = text.splitlines(keepends=True)
        if not lines:
            break
        line = draw(st.integers(0, len(lines) - 1))
        if how in ("number", "word"):
            spans = [found.span() for found in re.finditer(r"\d+" if how == "number" else r'-?\d[\d.e+]*|"[^"]*"|null', text)]
            start, end = draw(st.sampled_from(spans or [(0, 0)]))
            new = draw(st.integers(0, 13).map(str) if how == "number" else st.sampled_from([*ODD, *(text[a:b] for a, b in spans[:40])]))
            text = text[:start] + new + text[end:]
        elif how == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[line], lines[other] = lines[other], lines[line]
            text = "".join(lines)
        elif how == "twice":
            text = "".join([*lines[:line], lines[line], *lines[line:]])
        elif how == "drop":
            text = "".join([*lines[:line], *lines[line + 1 :]])
        elif how == "cut":
            text = text[: draw(st.integers(0, len(text)))]
        else:
            at = draw(st.integers(0, len(text) - 1))
            text = text[:at] + draw(st.sampled_from('0123456789{}[],:"-.e \x00\xff')) + text[at + 1 :]
    return text


def assert_sound(plan):
    """Every number of every table lies on one rank, once, where its sharding type has it."""
    nodes, local = plan["cluster"]["nodes"], plan["cluster"]["ranks_a_node"]
    assert plan["world_size"] == nodes * local
    assert type(plan["batch_size"]) is int
    assert plan["batch_size"] > 0
    for name, entry in plan["tables"].items():
        (rows, columns), kind, shards = entry["size"], entry["sharding_type"], entry["shards"]
        assert type(rows) is type(columns) is int, name
        if kind == "data_parallel":
            assert shards is None
            continue
        boxes = [(one["row"], one["row"] + one["rows"], one["column"], one["column"] + one["columns"]) for one in shards]
        ranks = [one["rank"] for one in shards]
        assert all(type(number) is int for box in boxes for number in box), name
        assert all(type(rank) is int and 0 <= rank < nodes * local for rank in ranks), name
        assert all(0 <= top <= bottom <= rows and 0 <= left < right <= columns for top, bottom, left, right in boxes), name
        # Inside, apart from one another and as large as the table together: so they cover it, once.
        assert sum((bottom - top) * (right - left) for top, bottom, left, right in boxes) == rows * columns, name
        for number, (top, bottom, left, right) in enumerate(boxes):
            for top2, bottom2, left2, right2 in boxes[:number]:
                assert min(bottom, bottom2) <= max(top, top2) or min(right, right2) <= max(left, left2), name
        widths = {right - left for _, _, left, right in boxes}
        assert widths == {columns} or all(width % 4 == 0 for width in widths), name
        hosts = [rank // local for rank in ranks]
        if kind == "table_wise":
            assert len(shards) == 1, name
        if kind in ("column_wise", "table_column_wise"):
            assert all(box[:2] == (0, rows) for box in boxes), name
        if kind in ("table_row_wise", "table_column_wise"):
            assert len(set(hosts)) == 1, name
        # A row's rank is its number by the block's: block b is the b-th rank's, of the job or of the host.
        parts = {"row_wise": nodes * local, "table_row_wise": local, "grid_shard": local}.get(kind)
        if parts:
            block = (rows + parts - 1) // parts
            for (top, bottom, _, _), rank in zip(boxes, ranks, strict=True):
                place = rank % parts
                assert (top, bottom) == (min(place * block, rows), min((place + 1) * block, rows)), name


def outcome(path, text):
    """`refused` or `accepted`."""
    path.write_bytes(text.encode("latin-1"))
    try:
        plan = read_plan(str(path))
    except UserError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert len(message) < 1000
        return "refused"
    assert_sound(plan)
    if plan["tables"] != sound()["tables"]:
        # Whoever shows or checks the plan goes on from here, and needs its `room` too.
        with contextlib.suppress(UserError):
            figures_of(plan, "plan.json")
    return "accepted"


def test_a_changed_plan_is_refused_or_sound(tmp_path):
    outcomes = Counter()

    @FUZZ
    @given(text=damaged())
    @example(text="")
    @example(text="[" * 100_000)
    def search(text):
        outcomes[outcome(tmp_path / "plan.json", text)] += 1

    search()
    # A search that is refused at the first byte, or never, would show nothing.
    assert min(outcomes["accepted"], outcomes["refused"]) > 20, outcomes


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", "accepted"),
        ('"rank": 2}', '"rank": 3}', "accepted"),
        ('"rank": 2}', '"rank": 2, "rank": 1}', "refused"),
        ('"pooling_factor": 1.0', '"pooling_factor": NaN', "refused"),
        ('"pooling_factor": 1.0', '"pooling_factor": 1e999', "refused"),
        ('"feature": "C1"', '"feature": "\xff"', "refused"),
    ],
)
def test_changes_of_note(tmp_path, old, new, expected):
    at = TEXT.index('  "T": {')
    assert outcome(tmp_path / "plan.json", TEXT[:at] + TEXT[at:].replace(old, new, 1)) == expected


@pytest.mark.parametrize("change", [{"rank": 4}, {"row": 1}, {"rows": 2}, {"columns": 4}])
def test_the_check_of_this_test_sees_a_shard_that_lies_otherwise(change):
    plan = sound()
    assert_sound(plan)
    plan["tables"]["R"]["shards"][1].update(change)
    with pytest.raises(AssertionError):
        assert_sound(plan)
