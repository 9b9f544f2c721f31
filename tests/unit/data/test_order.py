"""The order of an epoch's rows against a list of all rows, and what a rank has to decode."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dmoe.data.dataset.files import RowGroup
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading.epoch_order import EpochOrder
from dmoe.data.dataset.reading.reader import Reader
from dmoe.testing.small_data import NUMBER_SCALE, make_data_set


def taken_by_turns(rows, lanes):
    """All rows in the order of the epoch, written down lane by lane: the first lanes are a row longer."""
    short, longer = divmod(len(rows), lanes)
    parts, first = [], 0
    for lane in range(lanes):
        last = first + short + (lane < longer)
        parts.append(rows[first:last])
        first = last
    return [part[turn] for turn in range(short + 1) for part in parts if turn < len(part)]


def rows_of(order, spans):
    pieces = [piece for span in spans for piece in order.pieces(*span)]
    return [(group, row) for group, some in pieces for row in range(some.start, some.stop)]


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    lanes=st.integers(1, 12),
    batch=st.integers(1, 20),
    ranks=st.integers(1, 7),
    start=st.integers(0, 10),
)
def test_a_batch_is_the_next_rows_of_all_lanes_whatever_the_ranks(sizes, lanes, batch, ranks, start):
    order = EpochOrder([RowGroup(0, index, 0, rows) for index, rows in enumerate(sizes)], lanes)
    rows = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    epoch = taken_by_turns(rows, min(lanes, len(sizes)))
    assert sorted(epoch) == rows
    for low in range(min(start, len(rows)), len(rows), batch):
        high = min(low + batch, len(rows))
        parts = [rows_of(order, order.spans(low, high, rank, ranks)) for rank in range(ranks)]
        size = -(-(high - low) // ranks)
        assert [len(part) for part in parts] == [max(0, min(size, high - low - rank * size)) for rank in range(ranks)]
        together = [row for part in parts for row in part]
        assert sorted(together) == sorted(epoch[low:high])
        assert together == rows_of(order, order.spans(low, high, 0, 1))
        assert {group for group, _ in epoch[high : high + order.lanes]} <= order.going_on(high)


def decoded_by_each(folder, ranks, batch=64, **options):
    """The row groups that each rank decodes in an epoch, and the first column of its first batch."""
    manifest = load_manifest(folder)
    counts, first = [], []
    for rank in range(ranks):
        reader = Reader(folder, manifest, "train", manifest.categorical, ["I1"], prefetch=0, **options)
        decode, seen = reader._columns.read, []
        reader._columns.read = lambda group, decode=decode, seen=seen: seen.append(group) or decode(group)
        batches = list(reader.batches(batch, rank, ranks))
        counts.append(len(seen))
        first.extend(round(x * NUMBER_SCALE) for x in batches[0].dense_BD[:, 0].tolist())
    return counts, first


def test_a_rank_decodes_its_own_row_groups_and_a_batch_mixes_as_many_as_there_are_lanes(tmp_path):
    make_data_set(tmp_path, {"train": 256 * 16}, numbered=True)
    counts, first = decoded_by_each(str(tmp_path), 4, shuffle="window", window_row_groups=8)
    assert counts == [4, 4, 4, 4], "a quarter each of 16 row groups"
    assert len({number // 256 for number in first}) == 8, "rows of 8 row groups"
    assert sorted(first) != first
    alone, _ = decoded_by_each(str(tmp_path), 1, shuffle="window", window_row_groups=8)
    assert alone == [16], "none is decoded twice"
    undrawn, first = decoded_by_each(str(tmp_path), 4, shuffle="turns", window_row_groups=8)
    assert undrawn == [4, 4, 4, 4]
    assert first == [512 * lane + row for lane in range(8) for row in range(8)], "as an evaluation reads them"
    crowded, _ = decoded_by_each(str(tmp_path), 4, shuffle="window", window_row_groups=1)
    assert crowded == [16, 16, 16, 16], "ranks of one lane decode all of it"


def test_a_row_group_is_decoded_once_where_batches_end_within_the_lanes_turn(tmp_path):
    make_data_set(tmp_path, {"train": 256 * 16}, numbered=True)
    for batch in (3, 60, 68):
        alone, _ = decoded_by_each(str(tmp_path), 1, batch, shuffle="window", window_row_groups=8)
        assert alone == [16]
    neighbours, _ = decoded_by_each(str(tmp_path), 4, 68, shuffle="window", window_row_groups=8)
    assert neighbours == [6, 8, 8, 6], "its own 4, and of the lane at either side 2"
