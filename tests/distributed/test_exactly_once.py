"""Every row of an epoch is used once, whatever stops and restarts: counted, by a dense column that is the row's number."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmoe.checkpoint import inspect as look
from dmoe.checkpoint import of_run
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading.reader import Reader
from dmoe.testing.elastic import launch, used_rows
from dmoe.testing.small_data import NUMBER_SCALE, make_data_set
from tests.distributed.test_faults import CONFIG

ROWS = 1031
"""A prime: no batch and no number of ranks divides it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    make_data_set(folder, {"train": ROWS, "validation": 700, "test": 700}, numbered=True)
    return str(folder)


@settings(max_examples=15, deadline=None)
@given(
    stops=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), max_size=4),
    last=st.integers(1, 7),
    batch_size=st.sampled_from([7, 64, 100, 1031, 4096]),
    shuffle=st.sampled_from(["none", "turns", "row_groups", "window"]),
    epoch=st.integers(0, 2),
)
def test_any_stops_and_numbers_of_ranks_use_every_row_once(data, stops, last, batch_size, shuffle, epoch):
    """`stops`: numbers of ranks and the steps that they made before the stop; `last` ranks go to the end."""
    manifest = load_manifest(data)
    reader = Reader(data, manifest, "train", manifest.categorical, ["I1"], shuffle=shuffle, window_row_groups=2, prefetch=0)
    assert reader.rows == ROWS
    row, used = 0, Counter()
    for ranks, steps in [*stops, (last, None)]:
        taken = [list(reader.batches(batch_size, rank, ranks, epoch, row, steps)) for rank in range(ranks)]
        assert len({len(batches) for batches in taken}) == 1, "every rank takes the same number of steps"
        for batches in zip(*taken, strict=True):
            assert len({len(batch.label_B) for batch in batches}) == 1, "of the same number of rows"
            numbers = [round(x * NUMBER_SCALE) for batch in batches for x in batch.dense_BD[batch.weight_B > 0, 0].tolist()]
            assert len(numbers) == min(batch_size, ROWS - row)
            used.update(numbers)
            row += len(numbers)
    assert row == ROWS, "the last, smaller batch is kept"
    assert used == Counter(range(ROWS))


def test_the_order_does_not_depend_on_the_number_of_ranks(data):
    manifest = load_manifest(data)
    reader = Reader(data, manifest, "train", manifest.categorical, ["I1"], shuffle="window", prefetch=0)
    orders = []
    for ranks in (1, 3):
        taken = [list(reader.batches(64, rank, ranks)) for rank in range(ranks)]
        orders.append([x for batches in zip(*taken, strict=True) for b in batches for x in b.dense_BD[b.weight_B > 0, 0].tolist()])
    assert orders[0] == orders[1]


@pytest.fixture
def train(data, tmp_path):
    """`train(name, ranks, ...)` launches a run of two epochs in a folder of its own."""
    (tmp_path / "config.yaml").write_text(CONFIG.replace("batch_size: 64", "batch_size: 64, epochs: 2"))

    def start(name, ranks, faults=(), number=0):
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        given = [f"data.path={data}", f"run.dir={place}/run"]
        arguments = ["--config", f"{tmp_path}/config.yaml", "--resume", *(part for value in given for part in ("--set", value))]
        return launch(place, ranks, arguments, list(faults), number=number)

    return start


def counted(place):
    used = used_rows(place)
    assert sorted(used) == list(range(1, 2 * -(-ROWS // 64) + 1))
    assert Counter(row for rows in used.values() for row in rows) == Counter(dict.fromkeys(range(ROWS), 2))


def test_preempted_on_two_ranks_and_resumed_on_three(train, tmp_path):
    """SIGTERM to one rank: all stop at one step and exit with 143, and three ranks go on where two stopped."""
    stopped = train("run", 2, [{"at": "step", "number": 7, "rank": 1, "do": "term"}])
    assert 143 in stopped.codes.values()
    assert stopped.said.count("start again with --resume") == 1
    (step,) = [line.split("of step ")[1].split(";")[0] for line in stopped.said.splitlines() if "kept a checkpoint" in line]
    again = train("run", 3, number=1)
    assert again.succeeded
    assert f"resuming from step {step}" in again.said
    counted(tmp_path / "run")


@pytest.mark.slow
def test_preempted_twice_the_weights_are_those_of_a_run_that_was_not(train, tmp_path):
    assert train("straight", 2).succeeded
    train("run", 2, [{"at": "step", "number": 7, "rank": 1, "do": "term"}])
    again = train("run", 3, [{"at": "evaluate", "number": 2, "rank": 2, "do": "term"}], number=1)
    assert 143 in again.codes.values()
    assert train("run", 1, number=2).succeeded
    counted(tmp_path / "run")
    lines, differ = look.diff(of_run.newest(f"{tmp_path}/straight/run"), of_run.newest(f"{tmp_path}/run/run"), 5e-3)
    assert not differ, lines
