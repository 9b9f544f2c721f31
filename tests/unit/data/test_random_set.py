"""Random rows have the schema's columns, touch every table's end, and read as any data set does."""

import pyarrow.parquet as pq

from dmoe.data.dataset.manifest import GROUP, WEIGHT, CategoricalFeature, DenseFeature, Manifest, load_manifest
from dmoe.data.dataset.reading.reader import Reader
from dmoe.train.rehearsal.random_set import write_random_set


def schema(**more) -> Manifest:
    features = tuple(
        CategoricalFeature(name=name, kind="token", cardinality=rows, missing_share=0.0, rare_share=0.0)
        for name, rows in (("C1", 7), ("C2", 40))
    )
    dense = (DenseFeature(name="I1", transform="none", missing_share=0.0),)
    return Manifest(dataset="test", dense=dense, categorical=features, splits={}, **more)


def test_it_reads_as_a_data_set_and_covers_the_tables(tmp_path):
    write_random_set(str(tmp_path), schema(), {"train": 600, "test": 3})
    manifest = load_manifest(str(tmp_path))
    assert manifest.schema_hash == schema().schema_hash
    assert {name: split.rows for name, split in manifest.splits.items()} == {"train": 600, "test": 3}
    reader = Reader(str(tmp_path), manifest, "train", manifest.categorical, ["I1"], prefetch=0)
    (batch,) = reader.batches(600, 0, 1)
    ids = batch.sparse.values().view(2, 600)
    assert ids.amin(1).tolist() == [0, 0]
    assert ids.amax(1).tolist() == [6, 39]
    assert 0 < manifest.splits["test"].positives < 3


def test_lists_weights_and_groups_are_as_preprocessing_makes_them(tmp_path):
    lists = CategoricalFeature(name="L", kind="token", cardinality=9, missing_share=0.0, rare_share=0.0, pooling="sum", mean_ids=3.0)
    given = schema(weight="w", group="user")
    given = given.model_copy(update={"categorical": (*given.categorical, lists)})
    write_random_set(str(tmp_path), given, {"train": 400})
    table = pq.read_table(tmp_path / "train-00000.parquet")
    assert [str(table.schema.field(name).type) for name in ("L", WEIGHT, GROUP)] == ["list<element: int32>", "float", "int64"]
    lengths = [len(row) for row in table["L"].to_pylist()]
    assert min(lengths) >= 1
    assert 2.6 < sum(lengths) / 400 < 3.4
    manifest = load_manifest(str(tmp_path))
    reader = Reader(str(tmp_path), manifest, "train", manifest.categorical, ["I1"], prefetch=0)
    (batch,) = reader.batches(400, 0, 1)
    assert batch.sparse["L"].lengths().tolist() == lengths
    assert batch.weight_B.min() >= 0.5
    assert batch.group_B.max() < 100
