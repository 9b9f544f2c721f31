"""Preprocessing equals its plain-Python reference, byte for byte the same however the work is cut."""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.pipeline import Result, preprocess
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize
from tests.log_files import criteo
from tests.unit.data.reference import reference

ROWS = 3000


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.tsv"
    synthesize(str(path), ROWS, seed=3, scale=0.001, bad_share=0.02)
    return path


def run(inputs: list[Path], output: Path, **options) -> Result:
    options = {"min_count": 3, "max_bad_share": 0.5, "workers": 2, "rows_per_shard": 700, "row_group_rows": 128, **options}
    return preprocess(criteo(inputs=[str(path) for path in inputs], output=str(output), **options))


def digest(folder: Path) -> dict[str, str]:
    """The bytes of every file of a data set; of the manifest without what names the inputs."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "manifest.json":
                manifest = json.loads(data)
                for key in ("command", "inputs", "fingerprint", "days"):
                    del manifest["made_by"][key]
                data = json.dumps(manifest).encode()
            if "rejects" not in path.parts:
                files[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return files


@pytest.mark.parametrize(("by", "seed"), [("random", 0), ("random", 12345), ("time", 0)])
def test_rows_ids_counts_dense_values_and_splits_equal_the_reference(log, tmp_path, by, seed):
    result = run([log], tmp_path / "d", split_by=by, seed=seed, split="0.7,0.2,0.1")
    expected = reference(log.read_bytes().split(b"\n")[:-1], 3, ("0.7", "0.2", "0.1"), by, seed)
    manifest = load_manifest(str(tmp_path / "d"))
    assert manifest == result.manifest
    assert sum(len(rows) for rows in expected["splits"].values()) == ROWS
    total_missing = dict.fromkeys(expected["vocabularies"], 0)
    for name, rows in expected["splits"].items():
        split = manifest.split(name)
        table = pa.concat_tables([pq.read_table(tmp_path / "d" / shard.path) for shard in split.shards])
        assert table.num_rows == len(rows) == split.rows
        assert split.positives == sum(row["label"] for row in rows)
        for column in table.column_names:
            np.testing.assert_array_equal(table[column].to_numpy(), np.array([row[column] for row in rows]), err_msg=column)
        for feature in total_missing:
            total_missing[feature] += sum(row[feature] == 0 for row in rows)
    for feature in manifest.categorical:
        vocabulary = pq.read_table(tmp_path / "d" / "vocabulary" / f"{feature.name}.parquet").to_pydict()
        got = list(zip(vocabulary["token"], vocabulary["id"], vocabulary["count"], strict=True))
        assert got == expected["vocabularies"][feature.name]
        assert feature.cardinality == 2 + len(got)
        assert feature.missing_share == pytest.approx(total_missing[feature.name] / ROWS)


def test_bytes_do_not_depend_on_blocks_workers_memory_or_compression(log, tmp_path):
    run([log], tmp_path / "a")
    expected = digest(tmp_path / "a")
    (tmp_path / "z").mkdir()
    with gzip.open(tmp_path / "z" / "log.tsv.gz", "wb") as file:
        file.write(log.read_bytes())
    with pa.CompressedOutputStream(str(tmp_path / "z" / "log.tsv.zst"), "zstd") as file:
        file.write(log.read_bytes())
    for number, (path, options) in enumerate(
        [
            (log, {"block_bytes": 5000, "workers": 1}),
            (log, {"block_bytes": 50_001, "workers": 3}),
            (tmp_path / "z" / "log.tsv.gz", {"block_bytes": 70_000}),
            (tmp_path / "z" / "log.tsv.zst", {"block_bytes": 3000}),
        ]
    ):
        run([path], tmp_path / str(number), **options)
        assert digest(tmp_path / str(number)) == expected, options


def test_bytes_do_not_depend_on_the_order_of_the_inputs(log, tmp_path):
    lines = log.read_bytes().splitlines(keepends=True)
    days = [tmp_path / f"day_{day}.tsv" for day in (1, 2, 10)]
    for day, (begin, end) in zip(days, [(0, 1000), (1000, 1500), (1500, None)], strict=True):
        day.write_bytes(b"".join(lines[begin:end]))
    run([log], tmp_path / "a")
    run(days[::-1], tmp_path / "b")
    run([tmp_path / "day_*.tsv"], tmp_path / "c")
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b == c
    assert (tmp_path / "b" / "manifest.json").read_bytes() == (tmp_path / "c" / "manifest.json").read_bytes()


def test_a_header_names_columns_in_any_order(log, tmp_path):
    from dmoe.testing.criteo import FIELDS

    good = [line for line in log.read_bytes().split(b"\n")[:-1] if line.count(b"\t") == 39][:500]
    order = np.random.default_rng(0).permutation(40)
    text = ",".join(FIELDS[i].upper() for i in order).encode() + b"\r\n"
    for line in good:
        fields = line.split(b"\t")
        text += b",".join(fields[i] for i in order) + b"\r\n"
    (tmp_path / "log.csv").write_bytes(text)
    (tmp_path / "log.tsv").write_bytes(b"\n".join(good))
    run([tmp_path / "log.csv"], tmp_path / "a")
    run([tmp_path / "log.tsv"], tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_a_data_set_is_not_replaced_unasked_and_the_same_command_has_nothing_to_do(log, tmp_path):
    run([log], tmp_path / "d")
    before = digest(tmp_path / "d")
    assert run([log], tmp_path / "d").already_there
    with pytest.raises(UserError, match="--overwrite"):
        run([log], tmp_path / "d", seed=1)
    assert digest(tmp_path / "d") == before
    run([log], tmp_path / "d", seed=1, overwrite=True)
    run([log], tmp_path / "e", seed=1)
    assert digest(tmp_path / "d") == digest(tmp_path / "e") != before
