"""What may hurt a training is said in a line, before it does."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dmoe.config.config import parse_config
from dmoe.data.dataset.describe import describe
from dmoe.data.dataset.describe_view import describe_document
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.notices import feature_notices, notices
from dmoe.data.prepare.summary import summarize
from dmoe.train.output.describe import notices as run_notices
from tests.unit.data.every_schema import CROSSES, Days, kind_of, run

CHANGES = {
    "criteo": {"C3": "", "C4": "0a", "I2": "5", "I3": "", "C5": "{:x}"},
    "avazu": {"site_id": "", "app_id": "x", "device_ip": "t{}"},
    "any": {"raw": "", "site": "x", "age": "30", "user": "u{}"},
}
"""A column's new texts: the row's number in the place of {}."""
MISSING = {"criteo": ["I3", "C3", "I3_bucket"], "avazu": ["site_id"], "any": ["raw"]}
CONSTANT = {"criteo": ["I2", "C4", "I2_bucket"], "avazu": ["app_id"], "any": ["age", "site", "bucket"]}
RARE = {"criteo": ["C5"], "avazu": ["device_ip"], "any": ["who"]}
LABEL = {"criteo": ("label", "0"), "avazu": ("click", "1"), "any": ("clicked", "yes")}


def changed(days: Days, folder: Path, changes: dict[str, str]) -> Days:
    names = list(days[0].columns or []) if kind_of(days) == "criteo" else None
    paths, number = [], 0
    for path in days[1]:
        with open(path, newline="") as file:
            reader = csv.DictReader(file, names, delimiter="\t" if names else ",")
            rows = list(reader)
        for row in rows:
            number += 1
            row |= {name: text.format(number) for name, text in changes.items()}
        paths.append(folder / path.name)
        with open(paths[-1], "w", newline="") as file:
            writer = csv.DictWriter(file, reader.fieldnames or [], delimiter="\t" if names else ",", lineterminator="\n")
            if not names:
                writer.writeheader()
            writer.writerows(rows)
    return days[0], paths


def line_of(found: list[str], word: str) -> str:
    (line,) = [line for line in found if word in line]
    return line


def named(line: str) -> set[str]:
    return set(line.partition(";")[0].rpartition(" of ")[2].rpartition(" in ")[2].split(", "))


def test_features_that_say_nothing_and_empty_splits_are_told_of(days, tmp_path):
    kind = kind_of(days)
    result = run(changed(days, tmp_path, CHANGES[kind]), tmp_path / "d", split="0.9,0.1,0")
    manifest = load_manifest(str(tmp_path / "d"))
    found = notices(manifest)
    assert named(line_of(found, "no row has")) >= set(MISSING[kind])
    assert set(RARE[kind]) <= named(line_of(found, "no token"))
    assert set(CONSTANT[kind]) <= named(line_of(found, "same value"))
    assert set(manifest.made_by["constant"]) >= set(CONSTANT[kind])
    assert "'test'" in line_of(found, "no rows")
    said = summarize(result, str(tmp_path / "d"))
    told = describe_document(describe(str(tmp_path / "d"))).text().splitlines()
    assert all(f"warning: {one}" in said for one in found)
    assert max(map(len, told)) <= 100
    assert all(one.split(";")[0][:60] in " ".join(told) for one in found)
    assert all(f"{name} is the cross" in said for name in CROSSES[kind])
    only = feature_notices(manifest, {MISSING[kind][0]})
    assert [named(line) for line in only] == [{MISSING[kind][0]}]


def test_the_speed_is_that_of_the_rows_read_not_of_those_kept(days, tmp_path):
    result = run(days, tmp_path / "d", negatives=0.1)
    kept = sum(split.rows for split in result.manifest.splits.values())
    said = summarize(replace(result, seconds=2.0), "d")
    assert kept < result.lines
    assert f" {result.lines / 2:,.0f} rows/s" in said


def test_a_good_log_has_no_notice_of_what_varies(days, tmp_path):
    manifest = run(days, tmp_path / "d", min_count=1).manifest
    varies = {one.name for one in (*manifest.dense, *manifest.categorical)} - set(manifest.made_by.get("constant", []))
    for name in varies:
        assert feature_notices(manifest, {name}) == []
    assert set(MISSING[kind_of(days)] + CONSTANT[kind_of(days)] + RARE[kind_of(days)]) <= varies
    assert run(days, tmp_path / "s", vocabulary=str(tmp_path / "d"), scoring=True).manifest.made_by.get("constant") is None


def test_one_label_is_told_of_each_split(days, tmp_path):
    column, value = LABEL[kind_of(days)]
    manifest = run(changed(days, tmp_path, {column: value}), tmp_path / "d").manifest
    found = [line for line in notices(manifest) if "label" in line]
    assert [line.split(" rows of ")[1].split()[0] for line in found] == ["train", "validation", "test"]


def test_a_run_is_told_of_few_rows_and_of_the_features_that_it_reads(days, tmp_path):
    kind = kind_of(days)
    manifest = run(changed(days, tmp_path, CHANGES[kind]), tmp_path / "d").manifest
    for batch, few in [(4, False), (100_000, True)]:
        config = parse_config(f"data: {{path: d, features: [{RARE[kind][0]}], dense: buckets}}\ntrain: {{batch_size: {batch}}}\n", "c.yaml")
        line = "\n".join(run_notices(config, manifest, 1, torch.device("cpu")))
        assert RARE[kind][0] in line
        assert CONSTANT[kind][0] not in line
        assert ("train.batch_size" in line) == few


@pytest.mark.parametrize("found", [7, [7, None], {}, "x"])
def test_a_manifest_of_another_maker_may_say_anything(days, tmp_path, found):
    manifest = run(days, tmp_path / "d").manifest
    notices(manifest.model_copy(update={"made_by": {"constant": found, "train_rows": found, "negatives": found}}))
