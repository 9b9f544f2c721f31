"""Tasks give the same results however they are run, and what only Ray's workers do differently gives the same bytes."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmoe.data.prepare.count import count_tables as counting_tables
from dmoe.data.prepare.count import counting
from dmoe.data.prepare.count.hashed_sizes import measure, parse_sizes
from dmoe.data.prepare.engines.engine import Threads, run_tasks
from dmoe.data.prepare.parse.front_ends import front_for
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import Schema, load_schema
from dmoe.data.prepare.source.log_files import find_files
from dmoe.data.prepare.split.part_splitter import PartSplitter
from dmoe.data.prepare.split.split_rules import Splitter, parse_shares
from dmoe.data.prepare.tokens.buckets import make_buckets
from dmoe.data.prepare.tokens.token_columns import Tokens
from dmoe.data.prepare.write.parts import parse_files
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize
from tests.log_files import criteo
from tests.unit.data.log.logs import TREE, make_rows, schema, write_avazu, write_csv


class Far(Threads):
    """Threads that work as other machines' processes would, through files."""

    far = True


LOGS = ["criteo", "avazu_x4", "any"]


@pytest.fixture
def log(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Schema]:
    """Criteo's log, one of Avazu's form, or one with bags, weights, groups, times and buckets."""
    kind, path = getattr(request, "param", "criteo"), tmp_path / "log"
    if kind == "criteo":
        synthesize(str(path), 4000, seed=4, scale=0.01, bad_share=0.01)
    elif kind == "any":
        write_csv(path, make_rows(1500))
        return path, schema(categorical=[*TREE["categorical"], {"name": "bucket", "column": "age", "bucket": "log2", "type": "int"}])
    else:
        write_avazu(path, 1500)
    return path, load_schema(kind)


def tokens_of(log: tuple[Path, Schema], folder: Path) -> Tokens:
    path, log_schema = log
    files, _, labelled = find_files([str(path)], log_schema, "schema")
    parts = parse_files(files, front_for(log_schema, labelled, False, 20_000), str(folder / "parts"), Threads(2), lambda part, last: None)
    return Tokens(log_schema, PartSplitter(Splitter(parse_shares("0.8,0.1,0.1"), "random", 0), parts), make_buckets(log_schema, {}))


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
    assert counting.batches([3, 4, 5, 0, 1], 7) == [(0, 2), (2, 5)]
    assert counting.batches([3], 100) == [(0, 1)]
    cuts = counting.batches([10] * 100, 1, most=8)
    assert len(cuts) <= 8
    assert [number for first, end in cuts for number in range(first, end)] == list(range(100))


@pytest.mark.parametrize("engine", [Threads(2), Far(2)], ids=["threads", "far"])
@pytest.mark.parametrize("limit", [512 << 20, 20_000], ids=["roomy", "tight"])
@pytest.mark.parametrize("log", LOGS, indirect=True)
def test_counts_are_those_of_a_counter_however_they_are_made(log, tmp_path, monkeypatch, engine, limit):
    monkeypatch.setattr(counting_tables, "SPILLABLE", 1 << 12)
    monkeypatch.setattr(counting_tables, "SMALLEST", 1 << 8)
    monkeypatch.setattr(counting, "SMALL_TABLE", 1 << 10)
    monkeypatch.setattr(counting_tables, "FEWEST", 1 << 4)
    tokens = tokens_of(log, tmp_path)
    expected: dict[str, Counter[Any]] = {name: Counter() for name in tokens.types}
    for number in range(len(tokens.rows_of)):
        for name, values, counts in tokens.train_counts(number):
            for value, count in zip(values.to_pylist(), counts.tolist(), strict=True):
                expected[name][value] += count
    least = {name: 2 + place % 3 for place, name in enumerate(expected)}
    found = counting.count(tokens, least, limit, engine, str(tmp_path / "counts"), 500)
    for name, table in found.items():
        counted = dict(zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True))
        assert counted == {token: count for token, count in expected[name].items() if count >= least[name]}
        assert len(counted) == len(table)
    assert any((tmp_path / "counts").glob("*.counts")) == (engine.far or limit < 1 << 20)


@pytest.mark.parametrize("log", LOGS, indirect=True)
def test_what_hashing_loses_is_the_same_on_every_engine(log, tmp_path):
    tokens = tokens_of(log, tmp_path)
    sizes = parse_sizes("3000", tokens.schema.categorical)
    found = [measure(tokens.hashes, tokens.rows_of, sizes, engine) for engine in (Threads(2), Far(3))]
    assert found[0] == found[1]
    distinct = {name: set() for name in tokens.types}
    for number in range(len(tokens.rows_of)):
        for name, values, _ in tokens.train_counts(number):
            distinct[name] |= set(values.to_pylist())
    assert {name: one.tokens for name, one in found[0].items()} == {name: len(values) for name, values in distinct.items()}


def test_without_ray_one_line_says_what_to_install(log, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^--engine ray: .*dmoe\[ray\]"):
        preprocess(criteo([str(log[0])], str(tmp_path / "d"), engine="ray"))


def test_an_address_where_no_cluster_is_is_refused_at_once(log, tmp_path):
    with pytest.raises(UserError, match=r"--ray-address 127\.0\.0\.1:1: "):
        preprocess(criteo([str(log[0])], str(tmp_path / "d"), engine="ray", ray_address="127.0.0.1:1"))


def test_options_that_exclude_ray(log, tmp_path):
    with pytest.raises(UserError, match=r"--ray-address .*--engine ray"):
        preprocess(criteo([str(log[0])], str(tmp_path / "d"), ray_address="auto"))
