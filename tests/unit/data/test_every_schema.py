"""What one log can have, every log can: on Criteo's, on one of Avazu's form, and on one with bags, weights, groups, times and buckets."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dmoe.data.dataset.compatibility import check_compatible, inputs_of
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare import pipeline, stages
from dmoe.data.prepare.count import count_tables as counting_tables
from dmoe.data.prepare.count import counting
from dmoe.data.prepare.engines.engine import Threads
from dmoe.errors import UserError
from tests.unit.data.every_schema import data_of, flat, read, run, tokens_of
from tests.unit.data.reference import mix
from tests.unit.data.test_continue import Killed


class Far(Threads):
    """Threads that work as other machines' processes would, through files."""

    far = True


@contextmanager
def engines(name: str, workers: int, _: str | None) -> Iterator[Threads]:
    yield Far(workers) if name == "ray" else Threads(workers)


def test_new_tokens_are_rare_or_come_behind_the_kept_ones_by_count_then_token(days, tmp_path):
    first = run(days, tmp_path / "a", 0, split="1,0,0")
    run(days, tmp_path / "alone", 1, split="1,0,0", min_count=1)
    run(days, tmp_path / "kept", 1, split="1,0,0", vocabulary=str(tmp_path / "a"))
    result = run(days, tmp_path / "b", 1, split="1,0,0", vocabulary=str(tmp_path / "a"), new_tokens="append")
    appended = 0
    for feature in result.manifest.categorical:
        old, ids = tokens_of(tmp_path / "a", feature.name), tokens_of(tmp_path / "b", feature.name)
        counts = Counter(flat(read(tmp_path / "alone", "train")[feature.name]))
        seen = {token: counts[number] for token, number in tokens_of(tmp_path / "alone", feature.name).items()}
        new = sorted((token for token in seen if seen[token] >= 3 and token not in old), key=lambda token: (-seen[token], token))
        assert ids == old | {token: 2 + len(old) + place for place, token in enumerate(new)}
        assert feature.cardinality == 2 + len(ids)
        token_of = {number: token for token, number in tokens_of(tmp_path / "alone", feature.name).items()}
        kept = [0 if one == 0 else old.get(token_of[one], 1) for one in flat(read(tmp_path / "alone", "train")[feature.name])]
        assert flat(read(tmp_path / "kept", "train")[feature.name]) == kept
        appended += len(new)
    assert result.appended == appended > 0
    # `--init-from` takes a model of the first data set to the second one, and no other command does.
    check_compatible(inputs_of(first.manifest), inputs_of(result.manifest), str(tmp_path / "b"), ordered=True, grown=True)
    with pytest.raises(UserError, match=str(tmp_path / "b")):
        check_compatible(inputs_of(first.manifest), inputs_of(result.manifest), str(tmp_path / "b"), ordered=True)


def test_hashed_ids_are_the_tokens_hashes_and_a_scored_log_has_the_same(days, tmp_path):
    run(days, tmp_path / "counted", 0, split="1,0,0", min_count=1)
    result = run(days, tmp_path / "a", 0, split="1,0,0", ids="hash", hash_size="50")
    counted, hashed = read(tmp_path / "counted", "train"), read(tmp_path / "a", "train")
    for feature in result.manifest.categorical:
        token_of = {number: token for token, number in tokens_of(tmp_path / "counted", feature.name).items()}
        expected = [0 if one == 0 else 2 + hash_of(token_of[one]) % 48 for one in flat(counted[feature.name])]
        assert flat(hashed[feature.name]) == expected
        one = result.collisions[feature.name]
        assert (one.tokens, one.ids) == (len(token_of), len(set(expected) - {0}))
    run(days, tmp_path / "b", 0, vocabulary=str(tmp_path / "a"), scoring=True)
    scored = read(tmp_path / "b", "score")
    assert scored.select([one.name for one in result.manifest.categorical]).equals(
        hashed.select([one.name for one in result.manifest.categorical])
    )


def hash_of(token: int | bytes) -> int:
    """splitmix64 of an integer of 32 bits; of text, FNV-1a and splitmix64's finaliser."""
    if isinstance(token, int):
        return mix((token % 2**32 + 0x9E3779B97F4A7C15) % 2**64)
    x = 0xCBF29CE484222325
    for byte in token:
        x = (x ^ byte) * 0x100000001B3 % 2**64
    return mix(x)


def test_days_are_held_out_whole(days, tmp_path):
    result = run(days, tmp_path / "d", split_by="day", validation_days=1, test_days=1)
    counted = [day["rows"] for day in result.manifest.made_by["days"]]
    assert [split.rows for split in result.manifest.splits.values()] == [sum(counted[:-2]), counted[-2], counted[-1]]
    halves = run(days, tmp_path / "halves", split_by="day").manifest
    rows = [split.rows for split in halves.splits.values()]
    assert rows[0] == sum(counted[:-1])
    assert sum(rows[1:]) == counted[-1]
    assert min(rows[1:]) > 0


def test_bytes_do_not_depend_on_engine_blocks_workers_or_memory(days, tmp_path, monkeypatch):
    run(days, tmp_path / "a")
    expected = data_of(tmp_path / "a")
    for number, options in enumerate([{"block_bytes": 3000, "workers": 3}, {"memory_limit": 1 << 15}, {"engine": "ray", "workers": 2}]):
        with monkeypatch.context() as patch:
            patch.setattr(counting_tables, "SPILLABLE", 1 << 8)
            patch.setattr(counting, "SMALL_TABLE", 1 << 12)
            patch.setattr(counting_tables, "SMALLEST", 1 << 8)
            patch.setattr(pipeline, "open_engine", engines)
            run(days, tmp_path / str(number), **options)
        assert data_of(tmp_path / str(number)) == expected, options


@pytest.mark.parametrize("stage", ["_vocabularies", "write_shards", "publish"])
def test_a_killed_run_continues_to_the_same_bytes(days, tmp_path, monkeypatch, stage):
    run(days, tmp_path / "a")

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stages, stage, killed)
        with pytest.raises(Killed):
            run(days, tmp_path / "b")
    run(days, tmp_path / "b")
    assert data_of(tmp_path / "a") == data_of(tmp_path / "b")
    assert load_manifest(str(tmp_path / "a")).splits == load_manifest(str(tmp_path / "b")).splits
