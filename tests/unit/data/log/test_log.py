"""A data set from a log with a schema: equal to a plain reference, whatever blocks, workers, memory or file format."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.describe import describe
from dmoe.data.dataset.describe_view import describe_document
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare import stages
from dmoe.data.prepare.parse import front_ends as front
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.split.split_rules import NAMES, Splitter, parse_shares
from dmoe.errors import UserError
from tests.log_files import pipe
from tests.unit.data.log.logs import data_bytes, expected, make, make_rows, read_split, schema, write_csv


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_csv(tmp_path / "log.csv", make_rows(300))
    return tmp_path / "log.csv"


def assert_equal(folder: Path, rows: list[dict[str, str]], split_of: list[str]) -> None:
    splits, ids = expected(rows, split_of)
    for split, reference in splits.items():
        found = read_split(folder, split)
        assert len(found) == len(reference)
        for one, other in zip(found, reference, strict=True):
            group = one.pop("@group")
            assert group != 0
            for name in ("price", "age", "raw"):
                assert one.pop(name) == pytest.approx(other.pop(name), rel=1e-6, abs=1e-6)
            assert one == other
    for name, of_token in ids.items():
        vocabulary = pq.read_table(folder / "vocabulary" / f"{name}.parquet").to_pylist()
        assert {row["token"].decode(): row["id"] for row in vocabulary} == of_token


def test_ids_numbers_and_weights_equal_the_plain_reference(tmp_path: Path, log: Path):
    folder = make(tmp_path / "d", log)
    assigned = Splitter(parse_shares("0.8,0.1,0.1"), "random", 0).assign(0, 300, 300)
    assert_equal(folder, make_rows(300), [NAMES[split] for split in assigned])
    manifest = load_manifest(str(folder))
    tags = next(one for one in manifest.categorical if one.name == "tags")
    bags = [row["tags"] for split in NAMES for row in read_split(folder, split)]
    assert (tags.pooling, tags.mean_ids) == ("mean", pytest.approx(np.mean([len(bag) for bag in bags])))
    assert (manifest.weight, manifest.group) == ("w", "user")
    train = read_split(folder, "train")
    assert manifest.weighted_rate == pytest.approx(np.average([row["label"] for row in train], weights=[row["@weight"] for row in train]))


def test_the_time_column_splits_wherever_rows_stand(tmp_path: Path, log: Path):
    folder = make(tmp_path / "d", log, split_by="time", split="0.6,0.2,0.2")
    rows = make_rows(300)
    times = sorted(row["at"] for row in rows)
    cuts = times[180], times[240]
    split_of = [NAMES[(row["at"] >= cuts[0]) + (row["at"] >= cuts[1])] for row in rows]
    assert_equal(folder, rows, split_of)


@pytest.mark.parametrize("split_by", ["random", "time"])
def test_bytes_do_not_depend_on_blocks_workers_memory_or_compression(tmp_path: Path, log: Path, split_by: str):
    whole = make(tmp_path / "whole", log, split_by=split_by)
    small = make(tmp_path / "small", log, split_by=split_by, block_bytes=150, workers=3, memory_limit=1)
    zipped = tmp_path / "log.csv.gz"
    zipped.write_bytes(gzip.compress(log.read_bytes()))
    unzipped = make(tmp_path / "unzipped", zipped, split_by=split_by, block_bytes=999)
    assert data_bytes(whole) == data_bytes(small) == data_bytes(unzipped)
    assert load_manifest(str(whole)).categorical == load_manifest(str(small)).categorical


def test_formats_of_the_same_rows_give_the_same_bytes(tmp_path: Path, log: Path):
    rows = make_rows(300)
    whole = make(tmp_path / "csv", log)
    write_csv(tmp_path / "log.txt", rows, delimiter=";", header=False)
    bare = schema(delimiter=";", header=False, columns=list(rows[0]))
    assert data_bytes(make(tmp_path / "bare", tmp_path / "log.txt", schema=bare)) == data_bytes(whole)
    typed: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    typed["age"], typed["w"] = pa.array(map(int, typed["age"])), pa.array(map(float, typed["w"]))
    typed["raw"] = pa.array([float(value) if value else None for value in typed["raw"]])
    typed["tags"] = pa.array([value.split("|") if value else None for value in typed["tags"]])
    typed["at"] = pa.array([np.datetime64(value.replace(" ", "T"), "s") for value in typed["at"]])
    typed["user"] = pa.array(typed["user"]).dictionary_encode()
    pq.write_table(pa.table(typed), tmp_path / "log.parquet", row_group_size=77)
    tree = schema(format="parquet")
    assert data_bytes(make(tmp_path / "parquet", tmp_path / "log.parquet", schema=tree, block_bytes=9000)) == data_bytes(whole)


def test_without_a_quote_quotes_are_text(tmp_path: Path):
    (tmp_path / "log.tsv").write_text('click\tsite\n1\t"a\n0\tb"c"\n1\t"a\n')
    plain = parse_schema({"format": "tsv", "quote": None, "label": "click", "categorical": ["site"]}, "schema.yaml")
    folder = make(tmp_path / "d", tmp_path / "log.tsv", schema=plain, min_count=1, split="1,0,0")
    assert pq.read_table(folder / "vocabulary" / "site.parquet")["token"].to_pylist() == [b'"a', b'b"c"']
    with pytest.raises(UserError, match="delimiter: "):
        parse_schema({"quote": ",", "label": "click", "categorical": ["site"]}, "schema.yaml")


@pytest.mark.parametrize("dated", [True, False])
def test_the_description_has_the_label_rate_by_day(tmp_path: Path, dated: bool):
    """Without dates an input file is a day."""
    parts = {"a.csv": make_rows(200), "b.csv": make_rows(100, seed=1)}
    for name, rows in parts.items():
        write_csv(tmp_path / name, rows)
    tree = {} if dated else {"time": None, "categorical": ["site"]}
    folder = make(tmp_path / "d", tmp_path / "?.csv", block_bytes=900, schema=schema(**tree))
    rows_of: dict[str, list[int]] = {}
    for name, rows in parts.items():
        for row in rows:
            rows_of.setdefault(row["at"][:10] if dated else name, []).append(int(row["clicked"] == "yes"))
    described = describe(str(folder))
    assert described.days == [(day, len(clicks), sum(clicks)) for day, clicks in sorted(rows_of.items())]
    first = sorted(rows_of)[0]
    assert any(line.split()[:2] == [first, str(len(rows_of[first]))] for line in describe_document(described).text().splitlines())


def test_a_log_from_standard_input_gives_the_bytes_of_its_file(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch):
    def piped(data: bytes, folder: str = "piped") -> None:
        pipe(monkeypatch, data)
        make(tmp_path / folder, Path("-"))

    zipped = gzip.compress(log.read_bytes())
    piped(zipped)
    assert data_bytes(tmp_path / "piped") == data_bytes(make(tmp_path / "whole", log))
    manifest = (tmp_path / "piped" / "manifest.json").read_bytes()
    piped(zipped)
    assert (tmp_path / "piped" / "manifest.json").read_bytes() == manifest
    with pytest.raises(UserError, match=r"^--output .*--overwrite"):
        piped(log.read_bytes())
    with pytest.raises(UserError, match="--input -: empty"):
        piped(b"", "none")


def test_a_killed_run_continues_to_the_same_bytes(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch):
    whole = make(tmp_path / "whole", log)
    for stage in ("write_shards", "publish"):
        with monkeypatch.context() as patch:
            patch.setattr(stages, stage, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                make(tmp_path / "cut", log)
    with monkeypatch.context() as patch:
        patch.setattr("dmoe.data.prepare.parse.front_ends.encode", lambda *_: pytest.fail("parsed again"))
        patch.setattr(stages, "count", lambda *_: pytest.fail("counted again"))
        cut = make(tmp_path / "cut", log)
    assert data_bytes(cut) == data_bytes(whole)
    assert not (cut / ".work").exists()


def test_a_damaged_part_is_typed_again(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch):
    log.write_bytes(log.read_bytes() + b"too,few\n" * 5)
    options = {"block_bytes": 150, "max_bad_share": 0.5}
    whole = make(tmp_path / "whole", log, **options)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_shards", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "cut", log, **options)
    parts = sorted((tmp_path / "cut").rglob("*.arrow"))
    (bad,) = (tmp_path / "cut").rglob("*.bad")
    assert len(parts) > 4
    for path in (parts[0], bad):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    parts[1].write_bytes(parts[1].read_bytes()[:100])
    parts[2].unlink()
    Path(f"{parts[3]}.json").write_text('{"rows": 1')
    typed = []
    encode = front.encode
    monkeypatch.setattr(front, "encode", lambda *arguments: typed.append(1) or encode(*arguments))
    cut = make(tmp_path / "cut", log, **options)
    assert len(typed) == 5
    assert data_bytes(cut) == data_bytes(whole)
    (rejects,), (of_whole,) = (cut / "rejects").iterdir(), (whole / "rejects").iterdir()
    assert rejects.read_bytes() == of_whole.read_bytes()


def test_bad_rows_are_kept_aside_with_their_lines_and_fail_above_a_share(tmp_path: Path, log: Path):
    lines = log.read_bytes().split(b"\n")
    good = make(tmp_path / "good", log)
    planted = {
        2: (lines[1] + b",more", "fields", "11 fields, expected 10"),
        5: (lines[1].replace(b",u", b",\xff", 1), "encoding", "expected UTF-8 text"),
        6: (b"2024-13-01 00:00:00,yes,1,u1,,30,,x,,z", "time", "at is '2024-13-01 00:00:00'"),
        9: (b"2024-01-01 00:00:00,,1,u1,,30,,x,,z", "label", "clicked is empty, expected 'yes' or another value"),
        11: (b"2024-01-01 00:00:00,yes,0,u1,,30,,x,,z", "weight", "w is '0', expected a number above 0"),
        12: (b"2024-01-01 00:00:00,yes,1,u1,dear,30,,x,,z", "number", "price is 'dear', expected a finite number"),
        13: (b'2024-01-01 00:00:00,yes,1,u1,,30,,"x,,z', "fields", "a quote that is not closed"),
        14: (b"2024-01-01 00:00:00,yes,1,u1,,inf,,x,,z", "number", "age is 'inf'"),
        15: (b"", "fields", "1 field, expected 10"),
    }
    for number, (line, _, _) in sorted(planted.items()):
        lines.insert(number - 1, line)
    log.write_bytes(b"\n".join(lines))
    for size in (150, 1 << 20):
        folder = make(tmp_path / f"bad{size}", log, max_bad_share=0.1, block_bytes=size)
        assert data_bytes(folder) == data_bytes(good)
        (rejects,) = (folder / "rejects").iterdir()
        kept = [line.split(b"\t") for line in rejects.read_bytes().split(b"\n")[1:-1]]
        assert [(int(one[1]), one[2].decode()) for one in kept] == [(number, kind) for number, (_, kind, _) in planted.items()]
        for one, (line, _, reason) in zip(kept, planted.values(), strict=True):
            assert reason in one[3].decode()
            assert one[4] == line
    with pytest.raises(UserError, match=r"log\.csv:2: 11 fields, .* 10 .*9 .*309.* --max-bad-share 0\.001"):
        make(tmp_path / "strict", log)


def test_another_log_is_read_by_the_kept_vocabulary(tmp_path: Path, log: Path):
    folder = make(tmp_path / "d", log)
    other = tmp_path / "other.csv"
    write_csv(other, make_rows(300) + make_rows(40, seed=1))
    scored = make(tmp_path / "s", other, vocabulary=str(folder), scoring=True)
    rows = read_split(scored, "score")
    assigned = Splitter(parse_shares("0.8,0.1,0.1"), "random", 0).assign(0, 300, 300)
    for number, split in enumerate(NAMES):
        assert [row for row, mine in zip(rows, assigned, strict=False) if mine == number] == read_split(folder, split)
    assert len(rows) == 340
    assert load_manifest(str(scored)).schema_hash == load_manifest(str(folder)).schema_hash


def test_without_scoring_a_kept_vocabulary_makes_splits_of_a_labelled_log(tmp_path: Path, log: Path):
    folder = make(tmp_path / "d", log)
    other = make(tmp_path / "o", log, vocabulary=str(folder), seed=1)
    manifest = load_manifest(str(other))
    assert set(manifest.splits) == {"train", "validation", "test"}
    assert all(split.labelled for split in manifest.splits.values())
    assert manifest.schema_hash == load_manifest(str(folder)).schema_hash
    with pytest.raises(UserError, match=r"--scoring .*--vocabulary"):
        make(tmp_path / "s", log, scoring=True)
    log.write_text(log.read_text().replace("clicked", "forgotten", 1))
    with pytest.raises(UserError, match=r"log\.csv:1: .*'clicked'"):
        make(tmp_path / "u", log, vocabulary=str(folder))


def test_rows_to_score_need_no_label(tmp_path: Path, log: Path):
    folder = make(tmp_path / "d", log)
    text = log.read_text().replace("clicked", "forgotten", 1)
    log.write_text(text)
    scored = make(tmp_path / "s", log, vocabulary=str(folder), scoring=True)
    assert not load_manifest(str(scored)).splits["score"].labelled
    assert "label" not in read_split(scored, "score")[0]


def test_a_manifest_of_version_1_without_the_new_fields_stays_as_it_was(tmp_path: Path):
    from dmoe.testing.small_data import make_data_set

    make_data_set(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for feature in (*manifest["dense"], *manifest["categorical"]):
        del feature["identity"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    read = load_manifest(str(tmp_path))
    assert not read.categorical[0].multi_valued
    assert read.categorical[0].identity is None
    assert read.model_dump(mode="json") == manifest
    assert set(manifest["categorical"][0]) == {"name", "kind", "cardinality", "missing_share", "rare_share"}
