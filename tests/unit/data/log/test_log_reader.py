"""Multi-valued features, weights and groups through the reader: bags without a transpose, the same rows for any number of ranks."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading.bags import Bags, concatenate
from dmoe.data.dataset.reading.reader import Reader
from dmoe.errors import UserError
from dmoe.model.embedding.embedding import MultiEmbedding
from dmoe.model.embedding.tables import make_tables
from tests.unit.data.log.logs import make, make_rows, read_split, write_csv


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_csv(folder / "log.csv", make_rows(400))
    return make(folder / "d", folder / "log.csv")


def reader(data: Path, **options: object) -> Reader:
    manifest = load_manifest(str(data))
    return Reader(str(data), manifest, "train", manifest.categorical, [one.name for one in manifest.dense], prefetch=0, **options)  # type: ignore[arg-type]


def rows_of(batch: Batch) -> list[tuple[object, ...]]:
    """(label, weight, group, ids of each feature) of each row that is no padding."""
    assert batch.group_B is not None
    keys: list[str] = batch.sparse.keys()
    columns = [batch.sparse[key].to_dense() for key in keys]
    kept = range(int((batch.weight_B > 0).sum()))
    return [
        (batch.label_B[n].item(), batch.weight_B[n].item(), batch.group_B[n].item(), *(tuple(column[n].tolist()) for column in columns))
        for n in kept
    ]


def test_batches_hold_the_rows_of_the_shards(data: Path):
    names = [feature.name for feature in load_manifest(str(data)).categorical]
    found = [row for batch in reader(data).batches(50, 0, 1) for row in rows_of(batch)]
    expected = [
        (row["label"], row["@weight"], row["@group"], *(tuple(row[n]) if isinstance(row[n], list) else (row[n],) for n in names))
        for row in read_split(data, "train")
    ]
    assert found == expected
    assert max(len(row[3 + names.index("tags")]) for row in found) == 3


@pytest.mark.parametrize("shuffle", ["none", "turns", "window", "row_groups"])
def test_any_number_of_ranks_and_any_position_give_the_same_global_batches(data: Path, shuffle: str):
    options = {"shuffle": shuffle, "window_row_groups": 3, "seed": 5}
    alone = [rows_of(batch) for batch in reader(data, **options).batches(37, 0, 1, epoch=1)]
    if shuffle in ("window", "row_groups"):
        assert alone != [rows_of(batch) for batch in reader(data, **options).batches(37, 0, 1, epoch=2)]
    parts = [list(reader(data, **options).batches(37, rank, 3, epoch=1)) for rank in range(3)]
    assert [[row for batch in step for row in rows_of(batch)] for step in zip(*parts, strict=True)] == alone
    assert len({batch.sparse.stride() for batch in next(zip(*parts, strict=True))}) == 1
    later = [rows_of(batch) for batch in reader(data, **options).batches(37, 0, 1, epoch=1, start_row=74)]
    assert later == alone[2:]


def test_bags_are_cut_ordered_and_joined_as_lists_are():
    lists = [[1, 2], [], [3], [4, 5, 6], [7]]
    bags = Bags(np.concatenate(lists).astype(np.int32), np.cumsum([0, *map(len, lists)]))

    def listed(some: Bags) -> list[list[int]]:
        return [part.tolist() for part in np.split(some.values, some.offsets[1:-1])]

    order = np.array([3, 1, 4, 0, 2])
    assert listed(bags[order]) == [lists[place] for place in order]
    assert listed(bags[1:4]) == lists[1:4]
    assert listed(bags[1:4][np.array([2, 0])]) == [lists[3], lists[1]]
    assert len(bags[2:2]) == 0
    assert listed(concatenate([bags[3:], bags[:3]])) == lists[3:] + lists[:3]


def test_an_id_out_of_range_in_a_bag_is_named_with_its_row(data: Path, tmp_path: Path):
    path = data / "train" / "part-00000.parquet"
    manifest = json.loads((data / "manifest.json").read_text())
    table = pq.read_table(path)
    bags = table["tags"].to_pylist()
    bags[11] = [*bags[11], 99]
    (tmp_path / "train").mkdir()
    place = table.column_names.index("tags")
    pq.write_table(table.set_column(place, "tags", pa.array(bags, pa.list_(pa.int32()))), tmp_path / "train" / path.name)
    shard = manifest["splits"]["train"]["shards"][0]
    shard["sha256"] = hashlib.sha256((tmp_path / "train" / path.name).read_bytes()).hexdigest()
    manifest["splits"] = {"train": {"rows": shard["rows"], "positives": shard["positives"], "shards": [shard]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"tags: id 99 at row 11 of train/part-00000\.parquet"):
        list(reader(tmp_path).batches(50, 0, 1))


@pytest.mark.parametrize("layout", ["wide", "separate"])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_pooled_embeddings_equal_numpys(data: Path, layout: str, pooling: str):
    features = [one.model_copy(update={"pooling": pooling}) if one.multi_valued else one for one in load_manifest(str(data)).categorical]
    tables = make_tables(features, [4, 6], layout)
    torch.manual_seed(0)
    embedding = MultiEmbedding(tables, torch.device("cpu"))
    weights = {name.split(".")[1]: value.detach().numpy() for name, value in embedding.ebc.named_parameters()}
    batch = next(reader(data).batches(29, 0, 2))
    sets = [x_BFK.detach().numpy() for x_BFK in embedding(batch.sparse)]
    at = [feature.name for feature in features].index("tags")
    bags = [row["tags"] for row in read_split(data, "train")][: len(batch.label_B)]
    for table in tables:
        for section in table.sections if table.feature == "tags" else ():
            columns = weights[table.module][:, section.offset : section.offset + section.dim]
            expected = np.stack([getattr(columns[bag], pooling)(0) for bag in bags])
            np.testing.assert_allclose(sets[section.set_index][:, at], expected, rtol=1e-5, atol=1e-6)
    assert {(table.pooling, table.mean_ids > 1) for table in tables if table.feature == "tags"} == {(pooling, True)}
