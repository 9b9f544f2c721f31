"""Data sets whose ids were counted, grown or hashed, their vocabularies, and those of an earlier version."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dmoe.data.dataset.compatibility import check_compatible, inputs_of
from dmoe.data.dataset.earlier import with_identities
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize
from tests import log_files
from tests.unit.data.compared import (
    earlier,
    make_day,
    make_days,
    refusal,
    swap,
    turned,
)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_days(tmp_path_factory.mktemp("days"))


@pytest.fixture(scope="module")
def criteo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("criteo")
    for day in (0, 1):
        synthesize(str(folder / f"day_{day}.tsv"), 1500, seed=20 + day, scale=0.002)
    (folder / "both.tsv").write_bytes(b"".join((folder / f"day_{day}.tsv").read_bytes() for day in (1, 0)))

    def run(name: str, log: str, **options: Any) -> None:
        preprocess(log_files.criteo([str(folder / log)], str(folder / name), **{"split": "1,0,0", "min_count": 3, "workers": 1, **options}))

    run("old", "day_0.tsv")
    run("kept", "day_1.tsv", vocabulary=str(folder / "old"))
    run("grown", "day_1.tsv", vocabulary=str(folder / "old"), new_tokens="append")
    run("later", "day_0.tsv", vocabulary=str(folder / "grown"), new_tokens="append")
    run("unrelated", "both.tsv", min_count=1)
    run("hashed", "day_0.tsv", ids="hash", hash_size="300")
    run("hashed_next", "day_1.tsv", vocabulary=str(folder / "hashed"))
    run("hashed_more", "day_0.tsv", ids="hash", hash_size="400")
    return folder


GROWN = {"ordered": True, "grown": True}


def test_appended_ids_go_on_from_every_data_set_before(criteo: Path) -> None:
    sizes = [load_manifest(str(criteo / name)).categorical[0].cardinality for name in ("old", "grown")]
    assert sizes[0] < sizes[1]
    for old, new in (("old", "old"), ("old", "kept"), ("old", "grown"), ("grown", "later"), ("old", "later"), ("hashed", "hashed_next")):
        assert refusal(criteo / old, criteo / new, **GROWN) == ""
    for old, new in (("old", "kept"), ("hashed", "hashed_next")):
        assert refusal(criteo / old, criteo / new) == ""


def test_ids_that_mean_other_tokens_are_refused_though_the_tables_only_grow(criteo: Path) -> None:
    old, unrelated = (load_manifest(str(criteo / name)) for name in ("old", "unrelated"))
    assert all(a.cardinality <= b.cardinality for a, b in zip(old.categorical, unrelated.categorical, strict=True))
    message = refusal(criteo / "old", criteo / "unrelated", **GROWN)
    assert "feature C1 " in message
    assert "--new-tokens append" in message
    assert "feature C1 has " in refusal(criteo / "old", criteo / "grown")


def test_fewer_ids_and_other_hashes_are_refused(criteo: Path) -> None:
    assert "feature C1 " in refusal(criteo / "grown", criteo / "old", **GROWN)
    for modes in ({}, GROWN):
        assert "feature C1 has 400 " in refusal(criteo / "hashed", criteo / "hashed_more", **modes)
        assert "hash" in refusal(criteo / "old", criteo / "hashed", **modes)
        assert "vocabulary" in refusal(criteo / "hashed", criteo / "old", **modes)
    manifest = load_manifest(str(criteo / "hashed"))
    first = manifest.categorical[0]
    assert first.identity is not None
    other = first.model_copy(update={"identity": first.identity.model_copy(update={"hashed": "murmur3(token) mod N"})})
    assert "murmur3" in refusal(manifest, manifest.model_copy(update={"categorical": (other, *manifest.categorical[1:])}), criteo)


def test_a_vocabulary_of_another_data_set_is_refused(days: Path, criteo: Path, tmp_path: Path) -> None:
    shutil.copytree(days / "day1", tmp_path / "log")
    shutil.copy(days / "day2" / "vocabulary" / "site.parquet", tmp_path / "log" / "vocabulary" / "site.parquet")
    with pytest.raises(UserError, match=r"vocabulary/site\.parquet: "):
        make_day(tmp_path / "a", days / "day2.csv", vocabulary=str(tmp_path / "log"))
    shutil.copytree(criteo / "grown", tmp_path / "grown")
    # Within the old tokens, and behind them.
    for change in (turned, lambda table: pa.concat_tables([table[:-2], turned(table[-2:])])):
        shutil.copy(criteo / "grown" / "vocabulary" / "C1.parquet", tmp_path / "grown" / "vocabulary" / "C1.parquet")
        path = swap(tmp_path / "grown", "C1", change)
        with pytest.raises(UserError, match=r"\.parquet: .*tokens") as caught:
            check_compatible(*(inputs_of(load_manifest(str(criteo / name))) for name in ("old", "grown")), str(tmp_path / "grown"), **GROWN)
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", ["day1", "old", "hashed"])
def test_the_identities_of_an_earlier_data_set_are_those_that_are_written_now(days: Path, criteo: Path, tmp_path: Path, name: str) -> None:
    source = (days if name == "day1" else criteo) / name
    manifest = earlier(tmp_path / "d", source)
    assert manifest.categorical[0].identity is None
    assert with_identities(manifest, str(tmp_path / "d")) == load_manifest(str(source))
    now = load_manifest(str(source))
    assert with_identities(now, str(tmp_path / "nowhere")) is now


def test_an_earlier_data_set_beside_vocabularies_of_another_is_refused(criteo: Path, tmp_path: Path) -> None:
    manifest = earlier(tmp_path / "d", criteo / "old")
    swap(tmp_path / "d", "C1", turned)
    with pytest.raises(UserError, match=r"^/\S*d: .*vocabular"):
        with_identities(manifest, str(tmp_path / "d"))
