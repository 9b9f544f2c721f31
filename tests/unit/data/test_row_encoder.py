"""Rows in memory become what the same rows of a log become in a data set, for every kind of schema."""

import csv
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import Bucket, Schema, load_schema
from dmoe.data.prepare.tokens.buckets import Buckets
from dmoe.errors import UserError
from dmoe.serve.encoding import quick_rows
from dmoe.serve.encoding.bucket_steps import steps_of
from dmoe.serve.encoding.row_encoder import RowEncoder
from dmoe.serve.encoding.spelling import table_of
from dmoe.testing.synthesize import synthesize
from tests.unit.data.log.logs import TREE, make_rows, schema, write_avazu, write_csv

ROWS = 500


def rows_of(path: Path, known: Schema) -> list[dict[str, str]]:
    """The log's rows by Python's own reader, an empty text for a missing value."""
    with open(path, newline="") as file:
        lines = list(csv.reader(file, delimiter="\t" if known.format == "text" else known.delimiter_bytes.decode()))
    names = known.columns if known.header is not True else lines.pop(0)
    return [dict(zip(names, line, strict=True)) for line in lines]


def log_of(kind: str, folder: Path, seed: int) -> tuple[Schema, Path]:
    path = folder / f"{kind}{seed}"
    if kind == "criteo":
        synthesize(str(path), ROWS, seed=seed, scale=0.002)
        return load_schema("criteo"), path
    if kind == "avazu":
        write_avazu(path, ROWS, seed=seed)
        return load_schema("avazu_x4"), path
    write_csv(path, make_rows(ROWS, seed=seed))
    crosses = [{"name": "site_x_hour", "cross": ["site", "hour"]}, {"name": "who_x_old", "cross": ["who", "old"], "max_ids": 40}]
    return schema(categorical=[*TREE["categorical"], {"name": "old", "column": "age", "bucket": "log2"}, *crosses]), path


@pytest.fixture(scope="module", params=["criteo", "avazu", "any", "hashed"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Schema, Path, pa.Table, list[dict[str, Any]]]:
    """(schema, training data set, the rows of a later log as preprocessing gives them, and as they are)."""
    folder = tmp_path_factory.mktemp("rows")
    kind = "any" if request.param == "hashed" else request.param
    known, log = log_of(kind, folder, 0)
    options = {"ids": "hash", "hash_size": "50"} if request.param == "hashed" else {"min_count": 3}
    preprocess(Options([str(log)], str(folder / "data"), schema=known, workers=1, **options))
    _, later = log_of(kind, folder, 1)
    preprocess(Options([str(later)], str(folder / "later"), vocabulary=str(folder / "data"), scoring=True, workers=1))
    shards = [pq.read_table(folder / "later" / shard.path) for shard in load_manifest(str(folder / "later")).splits["score"].shards]
    return known, folder / "data", pa.concat_tables(shards), rows_of(later, known)


def names_of(data: Path) -> tuple[list[str], list[str]]:
    manifest = load_manifest(str(data))
    return [one.name for one in manifest.dense], [one.name for one in manifest.categorical]


def test_rows_are_encoded_as_their_log_is(made):
    _, data, expected, rows = made
    dense, categorical = names_of(data)
    encoder = RowEncoder(load_kept(str(data)), dense, categorical)
    for given in (rows, table_of(rows, encoder.columns)):
        found = encoder.encode(given)
        assert len(found) == expected.num_rows == ROWS
        for index, name in enumerate(dense):
            np.testing.assert_array_equal(found.dense_BI[:, index], expected[name].to_numpy())
        for index, name in enumerate(categorical):
            if name in found.bags:
                bags = found.bags[name]
                lists = [bags.values[low:high].tolist() for low, high in zip(bags.offsets[:-1], bags.offsets[1:], strict=True)]
                assert lists == expected[name].to_pylist()
            else:
                np.testing.assert_array_equal(found.ids_BF[:, index], expected[name].to_numpy())
    assert len(np.unique(found.ids_BF)) > 5


def test_features_are_chosen_and_ordered_and_one_row_is_enough(made):
    _, data, _, rows = made
    dense, categorical = names_of(data)
    whole = RowEncoder(load_kept(str(data)), dense, categorical).encode(rows)
    # The last one is a cross of features that are not asked for, where the schema has crosses.
    chosen = [len(categorical) - 1, 1]
    some = RowEncoder(load_kept(str(data)), dense[:1], [categorical[place] for place in chosen])
    assert len(some.columns) <= 5
    one = some.encode(rows[7:8])
    np.testing.assert_array_equal(one.dense_BI, whole.dense_BI[7:8, :1])
    np.testing.assert_array_equal(one.ids_BF, whole.ids_BF[7:8, chosen])
    assert len(some.encode([])) == 0


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> RowEncoder:
    folder = tmp_path_factory.mktemp("small")
    sites = ["s0", "s1", "s2", "s3", "7", "-7"]
    (folder / "log.csv").write_text("click,site,age,tags\n" + "".join(f"{row % 2},{sites[row % 6]},{row},a|b\n" for row in range(100)))
    (folder / "schema.yaml").write_text(
        "label: click\ndense: [age]\n"
        "categorical: [site, {name: tags, separator: '|', pooling: mean}, {name: old, column: age, bucket: log2}]\n"
    )
    preprocess(Options([str(folder / "log.csv")], str(folder / "data"), schema=str(folder / "schema.yaml"), min_count=1, workers=1))
    return RowEncoder(load_kept(str(folder / "data")), ["age"], ["site", "tags", "old"])


def test_what_json_has_is_read_and_what_is_not_there_is_missing(encoder):
    found = encoder.encode(
        [{"site": "s1", "age": 7, "tags": ["a"]}, {"age": "7.0", "tags": "a|b"}, {"site": "new"}, {"site": None, "tags": []}]
    )
    assert found.dense_BI[:, 0].tolist() == [7, 7, 0, 0]
    assert found.ids_BF[0, 0] > 1
    assert found.ids_BF[1:, 0].tolist() == [0, 1, 0]
    assert found.bags["tags"].lengths.tolist() == [1, 2, 1, 1]
    assert found.bags["tags"].values[3:].tolist() == [0, 0]
    assert found.ids_BF[0, 2] == found.ids_BF[1, 2] > 1
    mixed = encoder.encode([{"site": 1}, {"site": "s1"}, {"site": True}])
    assert mixed.ids_BF[1, 0] == found.ids_BF[0, 0]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"age": "old"}, "row 1: age is 'old'"),
        ({"age": {"years": 7}}, "row 1: 'age' is a dict"),
        ({"site": {"name": "s1"}}, "row 1: 'site' is a dict"),
        ({"age": float("inf")}, "row 1: age is "),
    ],
)
def test_a_row_that_cannot_be_encoded_is_named(encoder, row, named):
    with pytest.raises(UserError) as refused:
        encoder.encode([{"site": "s1", "age": 3}, row])
    assert named in str(refused.value)


def test_a_table_without_a_column_is_refused_by_name(encoder):
    with pytest.raises(UserError, match="'tags'"):
        encoder.encode(pa.table({"site": ["s1"], "age": [3]}))


def as_json(text: str) -> Any:
    """A log's value as a program sends it: a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found.dense_BI, expected.dense_BI)
    np.testing.assert_array_equal(found.ids_BF, expected.ids_BF)
    assert found.bags.keys() == expected.bags.keys()
    for name, bags in found.bags.items():
        np.testing.assert_array_equal(bags.values, expected.bags[name].values)
        np.testing.assert_array_equal(bags.offsets, expected.bags[name].offsets)


def test_the_short_way_is_taken_and_gives_the_pipelines_ids(made, monkeypatch):
    known, data, _, rows = made
    encoder = RowEncoder(load_kept(str(data)), *names_of(data))
    numeric = {one.column or one.name for one in [*known.dense, *(one for one in known.categorical if one.bucket or one.type == "int")]}
    monkeypatch.setattr(quick_rows, "KEPT", 50)
    some = [rows[low : low + size] for low, size in ((0, 1), (1, 7), (8, 200), (3, 1), (0, 300))]
    expected = [encoder.encode_all(one) for one in some]
    tables = [table_of(one, encoder.columns) for one in some]
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode_all", lambda rows: pytest.fail("not the short way"))
        for given, table, right in zip(some, tables, expected, strict=True):
            same(encoder.encode(given), right)
            same(encoder.encode(table), right)
    for one in some[:4]:
        numbers = [{name: as_json(text) if name in numeric else text for name, text in row.items() if text} for row in one]
        same(encoder.encode(numbers), encoder.encode_all(numbers))


def test_every_layout_of_arrow_columns_is_read(made, monkeypatch):
    _, data, _, rows = made
    encoder = RowEncoder(load_kept(str(data)), *names_of(data))
    whole = table_of([{name: text or None for name, text in row.items()} for row in rows], encoder.columns)
    expected = encoder.encode_all(whole.slice(5, 90))
    same(encoder.encode(pa.table({name: whole.column(name).dictionary_encode() for name in whole.column_names}).slice(5, 90)), expected)
    large = pa.table({name: whole.column(name).cast(pa.large_string()) for name in whole.column_names})
    monkeypatch.setattr(encoder, "encode_all", lambda rows: pytest.fail("not the short way"))
    for table in (whole.slice(5, 90), large.slice(5, 90), pa.concat_tables([whole.slice(5, 40), whole.slice(45, 50)])):
        same(encoder.encode(table), expected)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()])
def test_integers_of_every_width_are_numbers_and_tokens(encoder, kind):
    least, largest = np.iinfo(kind.to_pandas_dtype()).min, np.iinfo(kind.to_pandas_dtype()).max
    for numbers in [[0, 7, largest, None]] + [[1, -7, least, None]] * (least < 0):
        given = pa.table({"site": pa.array(numbers, kind), "age": pa.array([n and n % 100 for n in numbers], kind), "tags": ["a"] * 4})
        found = encoder.encode(given.slice(1))
        same(found, encoder.encode_all(given.slice(1)))
        same(encoder.encode(given.to_pylist()[1:]), found)
        assert found.ids_BF[0, 0] > 1


ODD = ["", None, "NULL", "nan", "inf", "+5", "5.", ".5", " 5", "1e5", "1e400", "1_0", "٣", "0012", "-0", "ff", "FFFFFFFF", "123456789"]
ODD += ["s1", "a|b", "|a||", "a\\b", "x\ny", "\ud800", "é|è", 3, -3, 0, 2**31, 2**40, 2.5, 1.0, -0.0, math.nan, math.inf, True]
ODD += [2**62, 10**30, False, [], ["a"], ["a", None, ""], [1], ["NULL", "b", "c", "d", "e"], {"a": 1}]
ODD += ["2024-01-01 10:00:00", "14102100", "2014-10-21 05:00:00"]


def test_a_value_means_what_its_whole_column_makes_of_it(encoder, monkeypatch):
    """Whole numbers among others, however far apart: a column of texts is not one of numbers."""
    monkeypatch.setattr("dmoe.serve.encoding.row_encoder.PIECE", 2)
    for odd in (2.5, "s1", None, True):
        given = [{"site": 1, "age": 1}] * 3 + [{}] * 3 + [{"site": odd, "age": odd if odd != "s1" else "3"}]
        same(encoder.encode(given), encoder.encode_all(given))


def outcome(encode: Any, rows: Any) -> Any:
    try:
        return encode(rows)
    except UserError as error:
        return str(error)


def test_odd_values_are_what_they_are_to_the_pipeline_or_its_error(made):
    _, data, _, rows = made
    encoder, draw = RowEncoder(load_kept(str(data)), *names_of(data)), random.Random(0)
    outcomes = Counter()
    for turn in range(120):
        given = [dict(row) for row in draw.sample(rows, draw.choice((1, 2, 5)))]
        names = draw.sample(encoder.columns, min(len(encoder.columns), 1 if turn % 2 else 3))
        for row in given:
            for name in names:
                row[name] = draw.choice(ODD)
        expected, found = outcome(encoder.encode_all, given), outcome(encoder.encode, given)
        outcomes[type(expected)] += 1
        if isinstance(expected, str):
            assert found == expected
        else:
            same(found, expected)
    assert min(outcomes.values()) > 5
    assert len(outcomes) == 2


@pytest.mark.parametrize("made_by", [{"formula": "log2"}, {"formula": "log_squared"}, {"edges": [-7.5, 0.0, 0.25, 3.0, 1e300]}])
def test_the_steps_of_buckets_count_to_their_numbers(made_by):
    bucket = Bucket(**made_by)
    buckets = Buckets(bucket, np.array(bucket.edges or ()))
    steps, least, own = steps_of(buckets)
    edge = 2**31 - 1
    values = np.concatenate([steps - 1, steps, steps + 1, np.random.default_rng(0).integers(-edge, edge, 1000), np.arange(-300, 300)])
    for value in np.clip(values, -edge, edge).tolist():
        below = sum(step <= value for step in steps.tolist())
        if bucket.formula == "log2":
            expected = int(math.copysign(abs(value).bit_length(), value))
        elif bucket.formula == "log_squared":
            expected = value if value <= 2 else math.floor(math.log(value) ** 2) + 3
        else:
            expected = sum(one <= value for one in bucket.edges)
        assert (value if own and not below else least + below) == expected


def test_numbers_of_json_at_the_limits_are_what_they_are_to_the_pipeline(made):
    known, data, _, rows = made
    encoder = RowEncoder(load_kept(str(data)), *names_of(data))
    for name in known.whole_numbers | {one.column or one.name for one in known.categorical if one.type == "int" and not one.cross}:
        for number in (2**31 - 1, 2**31, -(2**31), 2**63, 10**30, -(2**63), True):
            given = [dict(rows[0]) | {name: 1}, dict(rows[1]) | {name: None}, dict(rows[2]) | {name: number}]
            expected, found = outcome(encoder.encode_all, given), outcome(encoder.encode, given)
            if isinstance(expected, str):
                assert found == expected
            else:
                same(found, expected)


def test_values_that_another_thread_forgets_meanwhile_are_answered_all_the_same():
    ids = {"a": 3, "b": 4, "c": 5}

    def learn(values: list[str]) -> list[int]:
        kept.clear()
        return [ids[value] for value in values]

    kept = quick_rows.Kept(learn, 1)
    assert kept.of(["a", None, "b"]).tolist() == [3, 1, 4]
    assert kept.of(["c", "a", None]).tolist() == [5, 3, 1]
    assert kept.of([None, "b", "b"]).tolist() == [1, 4, 4]
