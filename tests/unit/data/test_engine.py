"""Tasks give the same results however they are run, and what only Ray's workers do differently gives the same bytes."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dmoe.data import counting, spread_counts, vocabulary
from dmoe.data.counting import Rows
from dmoe.data.engine import Threads, run_tasks
from dmoe.data.hashing import measure, parse_sizes
from dmoe.data.inputs import find_inputs
from dmoe.data.options import Options
from dmoe.data.preprocess import preprocess
from dmoe.data.share import parse_share, read_share
from dmoe.data.stage import Part, stage
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize


class Far(Threads):
    """Threads that work as other machines' processes would, through files."""

    far = True


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "day_0.tsv"
    synthesize(str(path), 4000, seed=4, scale=0.01, bad_share=0.01)
    return path


def staged(log: Path, folder: Path, block_bytes: int) -> list[Part]:
    return stage(find_inputs([str(log)]), str(folder), block_bytes, Threads(2), lambda part, last: None)


def countdown(shared: list[int], item: int) -> Iterator[int]:
    for step in range(3):
        time.sleep(0.002 * ((7 * item) % 5))
        yield 10 * item + step


def test_results_come_in_the_order_of_the_items_and_are_heard_as_they_come():
    heard: list[int] = []
    found = list(run_tasks(Threads(4), countdown, [], range(20), heard.append))
    assert found == [10 * item + step for item in range(20) for step in range(3)]
    assert sorted(heard) == found


def test_no_more_items_are_taken_than_there_is_room_for():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = run_tasks(Threads(2), countdown, [], items(), lambda _: None)
    next(results)
    results.close()
    assert len(taken) < 10


def test_a_task_that_fails_fails_the_run_and_starts_no_further():
    begun: list[int] = []

    def failing(shared: None, item: int) -> Iterator[int]:
        begun.append(item)
        if item == 3:
            raise UserError("item 3")
        yield item

    with pytest.raises(UserError, match="item 3"):
        list(run_tasks(Threads(1), failing, None, range(1000), lambda _: None))
    assert len(begun) < 10


def test_batches_hold_the_parts_in_order_and_no_more_are_made_than_allowed():
    assert spread_counts.batches([3, 4, 5, 0, 1], 7) == [(0, 2), (2, 5)]
    assert spread_counts.batches([3], 100) == [(0, 1)]
    cuts = spread_counts.batches([10] * 100, 1, most=8)
    assert len(cuts) <= 8
    assert [number for first, end in cuts for number in range(first, end)] == list(range(100))


@pytest.mark.parametrize("tight", [False, True])
def test_counts_of_batches_add_up_to_those_of_one_process(log, tmp_path, monkeypatch, tight):
    parts = staged(log, tmp_path / "parts", 20_000)
    rows = Rows(
        parts, np.cumsum([0] + [part.rows for part in parts]).tolist(), lambda first, rows: (np.arange(rows) % 5 != 0).astype(np.uint8)
    )
    alone = vocabulary.count(rows, 2, 512 << 20, Threads(2), "", 500)
    if tight:
        # Several hash partitions a feature, and several passes in a task.
        monkeypatch.setattr(counting, "SMALLEST", 1024)
        monkeypatch.setattr(counting, "SPLITTABLE", 1024)
        monkeypatch.setattr(spread_counts, "LARGEST_PARTITION", 100)
        monkeypatch.setattr(spread_counts, "ENTRIES_AT_ONCE", 100)
    limit = 1 << 20 if tight else 512 << 20
    spread = vocabulary.count(rows, 2, limit, Far(2), str(tmp_path / "counts"), 500)
    assert vocabulary.digest(spread) == vocabulary.digest(alone)
    assert len(list((tmp_path / "counts").glob("*.counts"))) > 5
    assert (len(list((tmp_path / "counts").glob("*.sums"))) > 39) == tight


def test_counts_that_are_there_are_not_counted_again(log, tmp_path, monkeypatch):
    parts = staged(log, tmp_path / "parts", 100_000)
    rows = Rows(parts, np.cumsum([0] + [part.rows for part in parts]).tolist(), lambda first, rows: np.ones(rows, np.uint8))
    once = vocabulary.count(rows, 2, 512 << 20, Far(1), str(tmp_path / "counts"), 500)
    monkeypatch.setattr(Rows, "count", lambda *_: pytest.fail("counted again"))
    assert vocabulary.digest(vocabulary.count(rows, 2, 512 << 20, Far(1), str(tmp_path / "counts"), 500)) == vocabulary.digest(once)


def test_what_batches_have_seen_of_hashed_ids_adds_up(log, tmp_path):
    parts, sizes = staged(log, tmp_path / "parts", 20_000), parse_sizes("3000")
    assert measure(parts, sizes, Far(3), str(tmp_path / "seen")) == measure(parts, sizes, Threads(2))
    assert len(list((tmp_path / "seen").iterdir())) == 3


def test_without_ray_one_line_says_what_to_install(log, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^--engine ray: Ray is not installed; pip install 'dmoe\[ray\]'$"):
        preprocess(Options([str(log)], str(tmp_path / "d"), engine="ray"))


def test_an_address_where_no_cluster_is_is_refused_at_once(log, tmp_path):
    with pytest.raises(UserError, match=r"--ray-address 127\.0\.0\.1:1: nothing answers there"):
        preprocess(Options([str(log)], str(tmp_path / "d"), engine="ray", ray_address="127.0.0.1:1"))


def test_options_that_exclude_ray(log, tmp_path):
    with pytest.raises(UserError, match="--ray-address goes with --engine ray"):
        preprocess(Options([str(log)], str(tmp_path / "d"), ray_address="auto"))
    with pytest.raises(UserError, match="--share and --engine ray exclude each other"):
        parse_share(Options([str(log)], str(tmp_path / "d"), engine="ray"), read_share("0/2"))
