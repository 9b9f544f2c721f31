"""Ids that outlive a data set: kept, appended and hashed ones equal their plain-Python references; scoring data is scored."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading.reader import Reader
from dmoe.data.prepare.count.hashed_sizes import KEPT, measure, parse_sizes
from dmoe.data.prepare.engines.engine import Threads
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import load_schema
from dmoe.data.prepare.tokens.token_ids import hashes
from dmoe.errors import UserError
from dmoe.testing.criteo import BUCKETS, CATEGORICAL
from dmoe.testing.synthesize import synthesize
from tests.log_files import criteo
from tests.unit.data.reference import COLUMNS, bucket, mix, well_formed
from tests.unit.data.test_continue import Killed
from tests.unit.data.test_preprocess import digest, run

CRITEO = load_schema("criteo").categorical
Tokens = dict[str, list[int | None]]


def tokens_of(log: Path) -> Tokens:
    """Each feature's raw tokens, None where missing, by a reference."""
    out: Tokens = {name: [] for name in CATEGORICAL}
    for line in log.read_bytes().split(b"\n")[:-1]:
        if well_formed(line):
            for name, field in zip(COLUMNS, line.rstrip(b"\r").split(b"\t")[1:], strict=True):
                feature = name if name[0] == "C" else name + "_bucket"
                value = None if not field else int(field, 16) if name[0] == "C" else bucket(int(field))
                out[feature].append(value)
    return out


def read(folder: Path, split: str = "train") -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / split).iterdir())])


def vocabulary(folder: Path, name: str) -> dict[int, int]:
    table = pq.read_table(folder / "vocabulary" / f"{name}.parquet").to_pydict()
    return dict(zip(table["token"], table["id"], strict=True))


@pytest.fixture(scope="module")
def days(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("days")
    for day in (0, 1):
        synthesize(str(folder / f"day_{day}.tsv"), 1500, seed=20 + day, scale=0.002, bad_share=0.01)
    return folder / "day_0.tsv", folder / "day_1.tsv"


@pytest.fixture(scope="module")
def first(days, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("first") / "d"
    run([days[0]], output, split="1,0,0")
    return output


def test_a_kept_vocabulary_makes_new_tokens_rare(days, first, tmp_path):
    manifest = run([days[1]], tmp_path / "d", split="1,0,0", vocabulary=str(first)).manifest
    assert [one.cardinality for one in manifest.categorical] == [one.cardinality for one in load_manifest(str(first)).categorical]
    tokens, table = tokens_of(days[1]), read(tmp_path / "d")
    for name in CATEGORICAL:
        ids = vocabulary(first, name)
        assert table[name].to_pylist() == [0 if token is None else ids.get(token, 1) for token in tokens[name]]
        assert vocabulary(tmp_path / "d", name) == ids


def test_appended_tokens_get_the_next_ids_and_old_ids_stay(days, first, tmp_path):
    result = run([days[1]], tmp_path / "d", split="1,0,0", vocabulary=str(first), new_tokens="append")
    tokens, table, appended = tokens_of(days[1]), read(tmp_path / "d"), 0
    for feature in result.manifest.categorical:
        old = vocabulary(first, feature.name)
        counts = Counter(token for token in tokens[feature.name] if token is not None and token not in old)
        new = sorted((token for token in counts if counts[token] >= 3), key=lambda token: (-counts[token], token))
        ids = old | {token: 2 + len(old) + i for i, token in enumerate(new)}
        assert vocabulary(tmp_path / "d", feature.name) == ids
        assert feature.cardinality == 2 + len(ids)
        assert table[feature.name].to_pylist() == [0 if token is None else ids.get(token, 1) for token in tokens[feature.name]]
        appended += len(new)
    assert result.appended == appended > 100
    again = run([days[0]], tmp_path / "e", split="1,0,0", vocabulary=str(tmp_path / "d")).manifest
    before, after = read(first), read(tmp_path / "e")
    for feature in load_manifest(str(first)).categorical:
        old, new = before[feature.name].to_numpy(), after[feature.name].to_numpy()
        assert ((new == old) | ((old == 1) & (new >= feature.cardinality))).all()
    assert again.schema_hash == result.manifest.schema_hash


def test_appending_goes_on_after_a_kill_and_another_vocabulary_is_another_data_set(days, first, tmp_path, monkeypatch):
    import dmoe.data.prepare.stages as module

    options = {"split": "1,0,0", "vocabulary": str(first), "new_tokens": "append"}
    run([days[1]], tmp_path / "whole", **options)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shards", killed)
        with pytest.raises(Killed):
            run([days[1]], tmp_path / "d", **options)
    run([days[1]], tmp_path / "d", **options)
    assert digest(tmp_path / "d") == digest(tmp_path / "whole")
    run([days[0]], tmp_path / "other", split="1,0,0", min_count=5)
    with pytest.raises(UserError, match=r"^--output .*--overwrite"):
        run([days[1]], tmp_path / "d", **options | {"vocabulary": str(tmp_path / "other")})


def hashed(token: int, size: int) -> int:
    return 2 + mix((token % 2**32 + 0x9E3779B97F4A7C15) % 2**64) % (size - 2)


def test_hashed_ids_and_their_collision_rate(days, tmp_path):
    result = run([days[0], days[1]], tmp_path / "d", split="1,0,0", ids="hash", hash_size="300,C3=50,I1_bucket=9", block_bytes=40_000)
    one, other = tokens_of(days[0]), tokens_of(days[1])
    tokens = {name: one[name] + other[name] for name in CATEGORICAL}
    table = read(tmp_path / "d")
    assert not (tmp_path / "d" / "vocabulary").exists()
    for feature in result.manifest.categorical:
        size = {"C3": 50, "I1_bucket": 9}.get(feature.name, 300)
        assert feature.cardinality == size
        assert feature.rare_share == 0
        expected = [0 if token is None else hashed(token, size) for token in tokens[feature.name]]
        assert table[feature.name].to_pylist() == expected
        distinct, ids = len(set(tokens[feature.name]) - {None}), len(set(expected) - {0})
        found = result.manifest.made_by["collisions"][feature.name]
        assert found["ids"] == ids
        assert found["tokens"] == pytest.approx(distinct, abs=max(1, distinct * 0.002))
        assert result.collisions[feature.name].rate == pytest.approx(1 - ids / distinct, abs=0.01)
    run([days[0], days[1]], tmp_path / "e", split="1,0,0", ids="hash", hash_size="300,C3=50,I1_bucket=9", workers=1)
    assert digest(tmp_path / "d") == digest(tmp_path / "e")


def test_many_distinct_tokens_are_told_within_the_sketch_s_error(monkeypatch):
    size, rng = 300_000, np.random.default_rng(0)
    pool = rng.integers(0, 2**62, 400_000)
    parts = [rng.choice(pool, 60_000) for _ in range(12)]
    distinct = np.unique(np.concatenate(parts))
    found = measure(lambda part: iter([{"C1": hashes(pa.array(np.unique(parts[part])))}]), [1] * 12, {"C1": size}, Threads(1))["C1"]
    ids = len({2 + int(one) % (size - 2) for one in hashes(pa.array(distinct))})
    # Four standard errors of the sketch.
    assert abs(found.tokens - len(distinct)) < 4 * len(distinct) / KEPT**0.5
    assert found.rate == pytest.approx(1 - ids / len(distinct), abs=0.02)


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**31), 2**32 - 1))
def test_an_integer_is_hashed_by_32_bits_where_it_has_no_more(token):
    bits = token % 2**32 if -(2**31) <= token < 2**32 else token % 2**64
    assert int(hashes(pa.array([token]))[0]) == mix((bits + 0x9E3779B97F4A7C15) % 2**64)
    if 0 <= token < 2**32:
        assert hashes(pa.array([token], pa.uint32()))[0] == hashes(pa.array([token]))[0]


@pytest.mark.parametrize("labelled", [False, True])
def test_a_log_to_score_has_one_split_with_the_training_ids(days, first, tmp_path, labelled):
    lines = [line for line in days[1].read_bytes().split(b"\n")[:-1] if well_formed(line)]
    path = tmp_path / "log.tsv"
    path.write_bytes(b"".join((line if labelled else line[2:]) + b"\n" for line in lines))
    result = run([path], tmp_path / "d", scoring=True, vocabulary=str(first), block_bytes=30_000)
    run([days[1]], tmp_path / "train", split="1,0,0", vocabulary=str(first))
    assert list(result.manifest.splits) == ["score"]
    split = result.manifest.splits["score"]
    assert (split.rows, split.labelled) == (len(lines), labelled)
    table, expected = read(tmp_path / "d", "score"), read(tmp_path / "train")
    assert table.equals(expected if labelled else expected.drop_columns("label"))
    if not labelled:
        with pytest.raises(UserError, match=r"'score' .*dmoe score"):
            Reader(str(tmp_path / "d"), result.manifest, "score", result.manifest.categorical, [])
        with pytest.raises(UserError, match=r"'label'.*--scoring"):
            run([path], tmp_path / "e")


def test_hashed_ids_of_a_data_set_are_those_of_a_log_to_score(days, tmp_path):
    run([days[0]], tmp_path / "d", split="1,0,0", ids="hash", hash_size="100")
    run([days[0]], tmp_path / "e", scoring=True, vocabulary=str(tmp_path / "d"))
    assert read(tmp_path / "e", "score").equals(read(tmp_path / "d"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2", "3 .. 2147483647"),
        ("a", "'a': expected"),
        ("99,C27=5", "C27: no such feature"),
        ("C1=5", "a size for the other features first"),
    ],
)
def test_a_mistake_in_the_sizes(text, said):
    with pytest.raises(UserError, match=said):
        parse_sizes(text, CRITEO)


def test_sizes_are_per_feature_and_buckets_have_small_tables():
    sizes = parse_sizes("1000000,C6=50", CRITEO)
    assert (sizes["C1"], sizes["C6"]) == (1_000_000, 50)
    assert {sizes[name] for name in BUCKETS} == {4096}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ids": "hash"}, "--ids hash needs --hash-size"),
        ({"hash_size": "9"}, "--hash-size goes with --ids hash"),
        ({"ids": "hash", "hash_size": "9", "vocabulary": "x"}, "exclude each other"),
        ({"new_tokens": "append"}, "goes with --vocabulary"),
        ({"scoring": True}, "--scoring needs the ids that the model was trained with"),
        ({"scoring": True, "vocabulary": "x", "new_tokens": "append"}, "no embedding of a new id"),
        ({"vocabulary": "d/"}, "is the output too"),
        ({"vocabulary": "nowhere"}, "no manifest.json in 'nowhere'"),
        ({"test_days": 1}, "go with --split-by day"),
    ],
)
def test_options_that_exclude_each_other(days, tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        preprocess(criteo([str(days[0])], "d", **changes))


def test_a_vocabulary_that_was_tampered_with_is_refused(days, first, tmp_path):
    import shutil

    shutil.copytree(first, tmp_path / "kept")
    path = tmp_path / "kept" / "vocabulary" / "C1.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "token", pa.array([*table["token"].to_pylist()[1:], 77])), path)
    with pytest.raises(UserError, match=r"C1\.parquet: .*tokens"):
        run([days[1]], tmp_path / "d", vocabulary=str(tmp_path / "kept"))
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"C1\.parquet: .*read"):
        run([days[1]], tmp_path / "d", vocabulary=str(tmp_path / "kept"))
