"""However a log comes, its rows are the same for each schema: compressed, from Windows, by standard input or S3, with bad rows among them;
and each split has the rows that its rule says."""

import csv
import gzip
import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.prepare.schema import Bucket, Categorical, Dense, Time
from dmoe.data.prepare.source import pieces as source
from dmoe.storage.paths import PATHS
from tests.log_files import pipe
from tests.s3_server import s3_server
from tests.unit.data.every_schema import Days, data_of, kind_of, label_of, random_splits, raw_rows, read, run, tokens_of
from tests.unit.data.test_every_schema import hash_of


def members(data: bytes) -> bytes:
    """gzip's, of which the first ends within a line."""
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(b"") + gzip.compress(data[half:])


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def windows(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("change", [members, zstd, windows, lambda data: zstd(windows(data))], ids=["gzip", "zstd", "windows", "both"])
@pytest.mark.parametrize("block_bytes", [3000, 1 << 20])
def test_compressed_or_from_windows_it_is_the_same_log(days: Days, tmp_path: Path, change: Callable[[bytes], bytes], block_bytes: int):
    run(days, tmp_path / "a")
    paths = [tmp_path / path.name for path in days[1]]
    for path, other in zip(days[1], paths, strict=True):
        other.write_bytes(change(path.read_bytes()))
    run((days[0], paths), tmp_path / "b", block_bytes=block_bytes)
    assert data_of(tmp_path / "b") == data_of(tmp_path / "a")


def write_as(form: str, path: Path, rows: list[dict[str, str]]) -> None:
    """A file of the rows. All forms but `bare` have a further column of delimiters, quotes and line ends, which no schema reads."""
    if form == "bare":
        path.write_text("".join("\x01".join(one) + "\n" for one in [list(rows[0]), *(list(row.values()) for row in rows)]))
        return
    rows = [row | {"note": 'a;"b"\r\n,\n' if place % 3 else "c"} for place, row in enumerate(rows)]
    if form == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif form == "parquet":
        columns = {name: pa.array([row[name] or None for row in rows]) for name in rows[0]}
        whole = {name: column.cast(pa.int64()) for name, column in columns.items() if name in ("I1", "I5", "age", "id")}
        texts = {name: column.dictionary_encode() if len(name) % 2 else column.cast(pa.large_string()) for name, column in columns.items()}
        pq.write_table(pa.table(texts | whole), path, row_group_size=150)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=";", quoting=csv.QUOTE_ALL, lineterminator="\r\n")
            writer.writeheader()
            writer.writerows(rows)


FORMS: dict[str, dict[str, Any]] = {
    "quoted": {"format": "csv", "delimiter": ";", "quote": '"'},
    "bare": {"format": "csv", "delimiter": "\x01", "quote": None},
    "jsonl": {"format": "jsonl", "delimiter": None},
    "parquet": {"format": "parquet", "delimiter": None},
}


@pytest.mark.parametrize(("form", "most_rows"), [*((form, source.MOST_ROWS) for form in FORMS), ("parquet", 100)])
def test_in_any_form_it_is_the_same_log(days: Days, tmp_path: Path, monkeypatch, form: str, most_rows: int):
    """With 100 rows, every row group counts as huge."""
    monkeypatch.setattr(source, "MOST_ROWS", most_rows)
    run(days, tmp_path / "a")
    paths = [tmp_path / f"day_{number}" for number in range(3)]
    for number, path in enumerate(paths):
        write_as(form, path, raw_rows(days, number))
    schema = days[0].model_copy(update={"header": True, "columns": None, **FORMS[form]})
    run((schema, paths), tmp_path / "b", block_bytes=7000, workers=3)
    assert data_of(tmp_path / "b") == data_of(tmp_path / "a")


def test_weights_groups_times_and_bags_join_any_log(days: Days, tmp_path: Path):
    rows = raw_rows(days, 0)
    for place, row in enumerate(rows):
        bag = "/".join(f"t{place * step % 7}" for step in range(1, place % 4 + 1))
        more = {"x w": str(0.5 + place % 3), "x u": f"u{place % 11}" if place % 5 else "", "x b": bag}
        row |= more | {"x t": f"{1 + place % 28:02d}.02.2023 {place % 24}h"}
    write_as("quoted", tmp_path / "log", rows)
    made: dict[str, Any] = {"header": True, "columns": None, "weight": "x w", "group": "x u", **FORMS["quoted"]}
    bag = Categorical(name="bag", column="x b", separator="/", pooling="sum", max_values=2)
    parts = [Categorical(name=f"of {part}", part=part) for part in ("hour", "weekday", "is_weekend")]
    made |= {"time": Time(column="x t", format="%d.%m.%Y %Hh"), "categorical": [*days[0].categorical, bag, *parts]}
    run((days[0].model_copy(update=made), [tmp_path / "log"]), tmp_path / "d", 0, split="1,0,0", min_count=1)
    found = read(tmp_path / "d", "train")
    assert found["@weight"].to_pylist() == [float(row["x w"]) for row in rows]
    groups = [hash_of(row["x u"].encode()) if row["x u"] else 0 for row in rows]
    assert found["@group"].to_pylist() == [group - 2**64 * (group >= 2**63) for group in groups]
    ids = {name: tokens_of(tmp_path / "d", name) for name in ("bag", *(one.name for one in parts))}
    assert found["bag"].to_pylist() == [[ids["bag"][one.encode()] for one in row["x b"].split("/")[:2] if one] or [0] for row in rows]
    times = [datetime.strptime(row["x t"], "%d.%m.%Y %Hh") for row in rows]
    for name, tokens in {
        "of hour": [str(time.hour) for time in times],
        "of weekday": [time.strftime("%w") for time in times],
        "of is_weekend": [str(int(time.weekday() > 4)) for time in times],
    }.items():
        assert found[name].to_pylist() == [ids[name][token.encode()] for token in tokens]


def test_standard_input_is_the_same_log(days: Days, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(days, tmp_path / "a", 0)
    pipe(monkeypatch, zstd(days[1][0].read_bytes()))
    run((days[0], [Path("-")]), tmp_path / "b", 0)
    assert data_of(tmp_path / "b") == data_of(tmp_path / "a")


def test_bad_rows_are_kept_with_file_line_and_reason_and_change_nothing(days: Days, tmp_path: Path):
    run(days, tmp_path / "a")
    lines = days[1][1].read_bytes().split(b"\n")
    bad = {40: b"one field", 41: lines[10].replace(lines[10][:1], b"\xff", 1), 90: lines[20] + b"\tmore,more", 91: b""}
    for place, line in bad.items():
        lines.insert(place - 1, line)
    (tmp_path / "day_1").write_bytes(b"\n".join(lines))
    paths = [days[1][0], tmp_path / "day_1", days[1][2]]
    done = run((days[0], paths), tmp_path / "b", max_bad_share=0.1)
    assert sum(done.bad_lines.values()) == len(bad)
    assert data_of(tmp_path / "b") == data_of(tmp_path / "a")
    (kept,) = (tmp_path / "b" / "rejects").iterdir()
    found = [line.split(b"\t", 4) for line in kept.read_bytes().split(b"\n")[1:-1]]
    assert [(row[0].decode(), int(row[1]), row[4]) for row in found] == [(f"{tmp_path}/day_1", place, line) for place, line in bad.items()]
    assert all(row[3] for row in found)


def test_from_s3_to_s3(days: Days, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(days, tmp_path / "a", 0, 1)
    bucket = kind_of(days)
    with s3_server(monkeypatch, bucket) as client:
        for number, change in enumerate([bytes, zstd]):
            client.put_object(Bucket=bucket, Key=f"raw/day_{number}", Body=change(days[1][number].read_bytes()))
        run((days[0], [f"s3://{bucket}/raw/day_*"]), f"s3://{bucket}/made", 0, work=str(tmp_path / "w"))
        expected = data_of(tmp_path / "a")
        for name, data in expected.items():
            with PATHS.open(f"s3://{bucket}/made/{name}", "rb") as file:
                assert file.read() == data
        keys = {one["Key"] for one in client.list_objects_v2(Bucket=bucket, Prefix="made/")["Contents"]}
        assert keys == {f"made/{name}" for name in [*expected, "manifest.json"]}


def labels_of(folder: Path) -> dict[str, list[int]]:
    return {split: read(folder, split)["label"].to_pylist() for split in ("train", "validation", "test")}


def test_a_random_split_is_that_of_the_rows_hashes(days: Days, tmp_path: Path):
    run(days, tmp_path / "d", seed=5)
    labels = [label_of(row) for row in raw_rows(days)]
    split_of = random_splits(len(labels), seed=5)
    expected = [[label for label, split in zip(labels, split_of, strict=True) if split == number] for number in range(3)]
    assert list(labels_of(tmp_path / "d").values()) == expected


def test_a_split_by_time_cuts_between_two_times(days: Days, tmp_path: Path):
    run(days, tmp_path / "d", split_by="time")
    rows = raw_rows(days)
    column = {"criteo": None, "avazu": "hour", "any": "at"}[kind_of(days)]
    # Criteo's log has no times: its own order is that of time. Texts of both others are ordered as their times are.
    times: list[Any] = [row[column] if column else place for place, row in enumerate(rows)]
    ordered, found = sorted(times), labels_of(tmp_path / "d")
    cuts = [len(found["train"]), len(found["train"]) + len(found["validation"])]
    for cut, share in zip(cuts, (0.8, 0.9), strict=True):
        assert bisect_left(ordered, ordered[cut]) == cut, "a time lies in two splits"
        assert abs(cut - share * len(rows)) <= max(ordered.count(time) for time in set(ordered))
    edges = [ordered[cut] for cut in cuts]
    split_of = [sum(time >= edge for edge in edges) for time in times]
    for number, labels in enumerate(found.values()):
        assert labels == [label_of(row) for row, split in zip(rows, split_of, strict=True) if split == number]


EDGES = [0.0, 3.0, 22.5, 600.0]


def test_buckets_and_standardised_numbers_are_those_of_their_definitions(days: Days, tmp_path: Path):
    """A column of numbers, in every schema: the tenths have a tenth of the train rows each, and mean 0 and deviation 1 come out."""
    column = {"criteo": "I5", "avazu": "id", "any": "age"}[kind_of(days)]
    rows = raw_rows(days)
    schema = days[0].model_copy(
        update={
            "dense": [*days[0].dense, Dense(name="standard", column=column, transform="standardise")],
            "categorical": [
                *days[0].categorical,
                Categorical(name="tenth", column=column, bucket=Bucket(quantiles=10)),
                Categorical(name="doubling", column=column, bucket=Bucket(formula="log2")),
                Categorical(name="between", column=column, bucket=Bucket(edges=EDGES), type="int"),
            ],
        }
    )
    run((schema, days[1]), tmp_path / "d", min_count=1, split="1,0,0")
    table = read(tmp_path / "d", "train")
    values = [float(row[column]) if row[column] else None for row in rows]
    given = [one for one in values if one is not None]
    mean = sum(given) / len(given)
    deviation = (sum((one - mean) ** 2 for one in given) / len(given)) ** 0.5
    expected = [0.0 if one is None else (one - mean) / deviation for one in values]
    assert table["standard"].to_pylist() == pytest.approx(expected, abs=1e-5)
    defined = {
        "doubling": lambda one: int(math.copysign(1 + math.floor(math.log2(abs(one))), one)) if abs(one) >= 1 else 0,
        "between": lambda one: bisect_right(EDGES, one),
    }
    for name, number_of in defined.items():
        ids = {int(token): number for token, number in tokens_of(tmp_path / "d", name).items()}
        assert table[name].to_pylist() == [0 if one is None else ids[number_of(one)] for one in values]
    bucket_of = {number: int(token) for token, number in tokens_of(tmp_path / "d", "tenth").items()}
    buckets = [bucket_of.get(one) for one in table["tenth"].to_pylist()]
    assert [one is None for one in buckets] == [one is None for one in values]
    pairs = sorted((value, bucket) for value, bucket in zip(values, buckets, strict=True) if value is not None and bucket is not None)
    assert [bucket for _, bucket in pairs] == sorted(bucket for _, bucket in pairs)
    most_of_one = max(given.count(one) for one in set(given))
    sizes = [sum(bucket == one for _, bucket in pairs) for one in set(bucket_of.values())]
    assert max(sizes) <= len(given) / 10 + most_of_one + 1
