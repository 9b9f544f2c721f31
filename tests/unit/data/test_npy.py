"""Exports hold the shards' rows, in order; torchrec's own class reads its layout."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest, save_manifest
from dmoe.data.npy import export
from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError
from dmoe.testing.small_data import make_data_set
from dmoe.testing.synthesize import synthesize
from tests.log_files import criteo


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("criteo")
    synthesize(str(folder / "log.tsv"), 2000, seed=8, scale=0.001)
    preprocess(criteo([str(folder / "log.tsv")], str(folder / "d"), min_count=3, rows_per_shard=700, row_group_rows=200))
    return folder / "d"


def rows_of(folder: Path, split: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(folder / shard.path) for shard in load_manifest(str(folder)).split(split).shards])


def test_torchrec_reads_its_layout(data, tmp_path):
    from torchrec.datasets.criteo import DEFAULT_CAT_NAMES, InMemoryBinaryCriteoIterDataPipe

    said = export(str(data), str(tmp_path / "e"), "torchrec-npy", rows_per_part=450, workers=2)
    names = [part["name"] for part in said["parts"] if part["split"] == "train"]
    assert len(names) == 4
    paths = [[str(tmp_path / "e" / f"{name}_{kind}.npy") for name in names] for kind in ("dense", "sparse", "labels")]
    got = list(InMemoryBinaryCriteoIterDataPipe("train", *paths, batch_size=256, rank=0, world_size=1, mmap_mode=True))
    table = rows_of(data, "train")
    dense = np.concatenate([batch.dense_features.numpy() for batch in got])
    np.testing.assert_array_equal(dense, np.stack([table[f"I{i}"].to_numpy() for i in range(1, 14)], 1))
    np.testing.assert_array_equal(np.concatenate([batch.labels.numpy() for batch in got]), table["label"].to_numpy())
    for number, key in enumerate(DEFAULT_CAT_NAMES, start=1):
        ids = np.concatenate([batch.sparse_features[key].values().numpy() for batch in got])
        np.testing.assert_array_equal(ids, table[f"C{number}"].to_numpy(), err_msg=key)
    assert said["left_out"] == [f"I{i}_bucket" for i in range(1, 14)]


def test_one_part_a_split_has_the_names_and_types_that_torchrec_dlrm_reads(data, tmp_path):
    export(str(data), str(tmp_path), "torchrec-npy", workers=3)
    for split in ("train", "validation", "test"):
        rows = load_manifest(str(data)).split(split).rows
        for kind, dtype, width in (("dense", np.float32, 13), ("sparse", np.int32, 26), ("labels", np.int32, 1)):
            array = np.load(tmp_path / f"{split}_{kind}.npy")
            assert (array.dtype, array.shape) == (dtype, (rows, width))
    assert not (tmp_path / ".work").exists()


def test_columns_are_the_shards(data, tmp_path):
    export(str(data), str(tmp_path), "columns-npy")
    said = json.loads((tmp_path / "export.json").read_text())
    assert said["cardinalities"] == {feature.name: feature.cardinality for feature in load_manifest(str(data)).categorical}
    for split in ("train", "validation", "test"):
        table = rows_of(data, split)
        assert {path.stem for path in (tmp_path / split).iterdir()} == set(table.column_names)
        for name in table.column_names:
            column, expected = np.load(tmp_path / split / f"{name}.npy"), table[name].to_numpy()
            assert column.dtype == expected.dtype
            np.testing.assert_array_equal(column, expected, err_msg=name)


def test_what_does_not_fit_is_refused(data, tmp_path):
    small = make_data_set(tmp_path / "d")
    with pytest.raises(UserError, match=r"3 .*4 .* 13 .*26"):
        export(str(tmp_path / "d"), str(tmp_path / "e"), "torchrec-npy")
    bag = small.categorical[0].model_copy(update={"pooling": "sum", "mean_ids": 2.0})
    save_manifest(str(tmp_path / "d"), small.model_copy(update={"categorical": (bag, *small.categorical[1:])}))
    with pytest.raises(UserError, match="C1: "):
        export(str(tmp_path / "d"), str(tmp_path / "e"), "columns-npy")
    with pytest.raises(UserError, match=r"--rows-per-part.*torchrec-npy"):
        export(str(data), str(tmp_path / "e"), "columns-npy", rows_per_part=5)
    assert not (tmp_path / "e").exists()
    export(str(data), str(tmp_path / "e"), "columns-npy")
    with pytest.raises(UserError, match=f"{tmp_path}/e: "):
        export(str(data), str(tmp_path / "e"), "columns-npy")
