"""Data sets keep the values that the two pipelines of version 0.1 gave them: digests of shards and vocabularies, by column."""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from dmoe.cli.main import main
from dmoe.testing.synthesize import synthesize
from tests.unit.data.log.logs import TREE, make_rows, write_avazu, write_csv

SMALL = ["--rows-per-shard", "300", "--row-group-rows", "100", "--max-bad-share", "0.1", "--block-kb", "32", "--workers", "2"]
BUCKETS = [
    {"name": "log2", "column": "price", "bucket": "log2"},
    {"name": "squared", "column": "age", "bucket": "log_squared"},
    {"name": "sevenths", "column": "age", "bucket": {"quantiles": 7}},
    {"name": "edges", "column": "age", "bucket": {"edges": [20.0, 30.5, 60.0]}},
]
CASES = {
    "criteo": "criteo --input DAY0 DAY1 --min-count 2",
    "criteo_time": "criteo --input DAY0 DAY1 --min-count 3 --split-by time --split 0.7,0.2,0.1",
    "criteo_day": "criteo --input DAY0 DAY1 --min-count 2 --split-by day",
    "criteo_hashed": "criteo --input DAY0 DAY1 --ids hash --hash-size 300,C3=50,I1_bucket=9",
    "criteo_first": "criteo --input DAY0 --min-count 2 --split 1,0,0",
    "criteo_kept": "criteo --input DAY1 --vocabulary criteo_first",
    "criteo_appended": "criteo --input DAY1 --vocabulary criteo_first --new-tokens append --min-count 2",
    "criteo_scoring": "criteo --input DAY1 --vocabulary criteo_hashed --scoring",
    "log": "log --schema SCHEMA --input LOG --min-count 3",
    "log_time": "log --schema SCHEMA --input LOG --min-count 3 --split-by time",
    "log_scoring": "log --vocabulary log --input LOG2 --scoring",
    "avazu_x4": "avazu --input AVAZU",
    "avazu_x1": "avazu --protocol x1 --drop device_id --input AVAZU",
}
"""In this order: some read what others made."""
KEPT = {
    "criteo": "78975bc0bf92b407104d1b853ec309801581121e800427e5570ac2c168959cf5",
    "criteo_time": "d1a1b759be27e6f535898a11cd9373cb867ac9a0c6c1760582c9198507eb5a95",
    "criteo_day": "a1252e24804b25c6cf6e8094b787ddb067cd0ac0fb75aab4e3815988880a391e",
    "criteo_hashed": "e2f2bbf3bc05f169d3816837dfb3337812d05c78a535821632e70aef06653d02",
    "criteo_first": "a93f58011dcca903b2f98947af3b8996d9863fc844b4f2bdc092fe1d0fea2d2a",
    "criteo_kept": "cab46c399432a7a7c294f6a1afa5ccc727f3b44b06623d741171e7a616a0d833",
    "criteo_appended": "78dfc697b6ded6567018ff73d7222600d0781fa88b254c3ea1f5147ab85a658f",
    "criteo_scoring": "3c1364db83742c13fbd675c8d7e50c8cc60d6d3e0f0fa052daf06acf16ba91d3",
    "log": "8167c7d5378e54fb767cafabcf388c2db884991b6e71a651c38654a4766fb59b",
    "log_time": "325d792347c2db8e9a61f2de1dae53c160c1d7321603d3962f5bea5bd8f7f128",
    "log_scoring": "8dfe52a178db044d5c9a20e08d842970baf346567e3d64f0ed8a81fe36215467",
    "avazu_x4": "f02b370cdf09ec494d804ea9cd7276229324c33fd6edec64304b80096c56a442",
    "avazu_x1": "6c068b075a205051e1ac2b2cbf545f2c929dda4a985ab2893c3abfe1d0d5adf9",
}


def write_inputs(folder: Path) -> None:
    for day in range(2):
        synthesize(str(folder / f"DAY{day}"), 700, seed=day, scale=0.001, bad_share=0.01)
    write_csv(folder / "LOG", make_rows(900, 1))
    write_csv(folder / "LOG2", make_rows(200, 2))
    write_avazu(folder / "AVAZU", 800)
    (folder / "SCHEMA").write_text(yaml.safe_dump(TREE | {"categorical": [*TREE["categorical"], *BUCKETS]}))


def digest_of(folder: Path) -> str:
    """Of the values of every column in every parquet file."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(path)
        for name in table.column_names:
            digest.update(f"{path.relative_to(folder)} {name} {table[name].type} {table[name].to_pylist()}\n".encode())
    return digest.hexdigest()


def test_every_column_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    for name, words in CASES.items():
        assert main(["preprocess", *words.split(), *SMALL, "--output", name]) == 0
    assert {name: digest_of(tmp_path / name) for name in CASES} == KEPT
