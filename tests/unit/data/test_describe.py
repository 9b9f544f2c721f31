"""A data set's description equals what its rows say."""

import math
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.describe import Description, FeatureFacts, describe, table_bytes
from dmoe.data.dataset.describe_view import describe_document
from dmoe.data.dataset.manifest import load_manifest, save_manifest
from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError
from dmoe.report.document import Bars, Figures
from dmoe.testing.small_data import make_data_set
from dmoe.testing.synthesize import synthesize
from tests import log_files


@pytest.fixture(scope="module")
def criteo(tmp_path_factory) -> Path:
    """All rows are train rows, so that the vocabularies' counts are of all rows."""
    folder = tmp_path_factory.mktemp("criteo")
    synthesize(str(folder / "log.tsv"), 3000, seed=6, scale=0.001)
    preprocess(
        log_files.criteo([str(folder / "log.tsv")], str(folder / "d"), min_count=3, split="1,0,0", rows_per_shard=1000, row_group_rows=300)
    )
    return folder / "d"


def test_skew_missing_and_rates_equal_the_rows(criteo):
    shards = load_manifest(str(criteo)).split("train").shards
    rows = [row for shard in shards for row in pq.read_table(criteo / shard.path).to_pylist()]
    got = describe(str(criteo))
    (train,) = [split for split in got.splits if split.name == "train"]
    assert (train.rows, train.shards, train.row_groups) == (3000, 3, 12)
    assert train.positives == sum(row["label"] for row in rows)
    assert train.bytes == sum((criteo / shard.path).stat().st_size for shard in shards)
    for feature in got.features:
        counts = Counter(row[feature.name] for row in rows)
        own = sorted((count for token, count in counts.items() if token > 1), reverse=True)
        assert feature.missing == pytest.approx(counts[0] / 3000)
        assert feature.rare == pytest.approx(counts[1] / 3000)
        for k in (1, 10, 100):
            assert feature.share_of_top(k) == pytest.approx(sum(own[:k]) / 3000), (feature.name, k)
        entropy = -sum(count / 3000 * math.log(count / 3000) for count in counts.values())
        assert feature.effective == pytest.approx(math.exp(entropy))


def test_without_vocabularies_skew_is_that_of_the_shards(criteo, tmp_path):
    shutil.copytree(criteo, tmp_path / "d")
    shutil.rmtree(tmp_path / "d" / "vocabulary")
    kept, sampled = describe(str(criteo)), describe(str(tmp_path / "d"))
    assert "vocabularies" in kept.skew_from
    assert "of the train split" in sampled.skew_from
    for one, other in zip(kept.features, sampled.features, strict=True):
        assert other.top == [(k, pytest.approx(share)) for k, share in one.top]
        assert other.effective == pytest.approx(one.effective)


def test_text_fits_100_columns_and_the_page_stands_alone(tmp_path):
    manifest = make_data_set(tmp_path / "d")
    days = [{"name": "day_0", "rows": 3000, "positives": 300}, {"name": "day_1", "rows": 1400, "positives": 700}]
    save_manifest(str(tmp_path / "d"), manifest.model_copy(update={"made_by": {"days": days}}))
    got = describe(str(tmp_path / "d"))
    lines = describe_document(got).text().splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.split() == ["day_1", "1,400", "50.00%"] for line in lines)
    page = describe_document(got).html()
    assert page.count("<svg") == 4
    assert "Label rate by day" in page
    for outside in ("src=", "<link", "@import"):
        assert outside not in page
    assert all(feature.name in page for feature in manifest.categorical)


def test_of_many_features_a_chart_has_those_with_most_and_the_table_all():
    features = [FeatureFacts(f"f{n}", "token", 10 + n, 0.5 - n / 1000, 0.0, None, None) for n in range(200)]
    view = describe_document(Description("d", "own", [], [], features, [], "", "", []))
    ids, missing = (chart for block in view.blocks if isinstance(block, Figures) for chart in block.charts if isinstance(chart, Bars))
    assert ids.names == [f"f{n}" for n in range(199, 139, -1)]
    assert missing.names == [f"f{n}" for n in range(60)]
    assert all(f"f{n} " in view.text() for n in range(200))


def test_memory_of_the_tables():
    assert table_bytes(1000, 16) == {"sgd": 64_000, "rowwise_adagrad": 68_000, "adagrad": 128_000, "adam": 192_000}


def test_a_missing_shard_is_named(tmp_path):
    manifest = make_data_set(tmp_path)
    (tmp_path / manifest.splits["test"].shards[0].path).unlink()
    with pytest.raises(UserError, match=r"part-00000\.parquet: missing"):
        describe(str(tmp_path))


def test_a_vocabulary_of_another_data_set_is_named(tmp_path):
    make_data_set(tmp_path / "d")
    make_data_set(tmp_path / "other", cardinalities=(40, 31, 25, 60))
    path = tmp_path / "d" / "vocabulary" / "C2.parquet"
    path.write_bytes((tmp_path / "other" / "vocabulary" / "C2.parquet").read_bytes())
    with pytest.raises(UserError, match=r"C2\.parquet: "):
        describe(str(tmp_path / "d"))
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"C2\.parquet: .*read"):
        describe(str(tmp_path / "d"))
