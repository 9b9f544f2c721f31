"""Data sets from anywhere: no name in their manifest leads out of the folder that is written, and nothing else of a user's is removed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.npy import export
from dmoe.data.parquet import write_shard
from dmoe.data.prepare import pipeline
from dmoe.data.prepare.options import Options
from dmoe.errors import UserError
from dmoe.testing.small_data import make_data_set
from tests.unit.data.log.logs import make_rows, schema, write_csv

COMMANDS = {
    "export": lambda data, output: export(str(data), str(output), "columns-npy", workers=1),
}


def preprocess(_: Path, output: Path) -> None:
    log = output.parent / "log.csv"
    write_csv(log, make_rows(60))
    pipeline.preprocess(Options([str(log)], str(output), schema=schema(), where="s.yaml", min_count=1, workers=1))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    (folder / "chunks").mkdir(parents=True)
    for name in ("thesis.tex", "part-1.parquet", "label.npy", "chunks/a"):
        (folder / name).write_text("precious")
    return folder


def everything(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _untouched(victim: Path, tmp_path: Path):
    before = everything(victim)
    yield
    assert everything(victim) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"victim", "d", "out", "log.csv"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_data_set(tmp_path / "d", {"train": 300, "test": 100})
    return tmp_path / "d"


def change(data: Path, how: Any) -> None:
    manifest = json.loads((data / "manifest.json").read_text())
    how(manifest)
    (data / "manifest.json").write_text(json.dumps(manifest))


def rename(data: Path, names: dict[str, str]) -> None:
    """Gives features other names, in the shards and in the manifest."""

    def renamed(manifest: dict[str, Any]) -> None:
        for feature in manifest["categorical"] + manifest["dense"]:
            feature["name"] = names.get(feature["name"], feature["name"])
        for shard in (shard for split in manifest["splits"].values() for shard in split["shards"]):
            table = pq.read_table(data / shard["path"])
            pq.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), data / shard["path"])
            shard["sha256"] = file_sha256(str(data / shard["path"]))

    change(data, renamed)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["../victim", "{}/victim", "vocabulary", "a/b", "..", ""])
@pytest.mark.parametrize("empty", [True, False])
def test_a_split_is_no_path(data, tmp_path, command, name, empty):
    name = name.format(tmp_path)

    def add(manifest: dict[str, Any]) -> None:
        manifest["splits"][name] = {"rows": 0, "positives": 0, "shards": []} if empty else manifest["splits"].pop("test")

    change(data, add)
    with pytest.raises(UserError, match=r"manifest\.json: .*split"):
        COMMANDS[command](data, tmp_path / "out")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["../../victim/label", "{}/victim/label", "../train/label", ".."])
def test_a_feature_is_no_path(data, tmp_path, command, name):
    rename(data, {"C1": name.format(tmp_path), "I1": f"{name.format(tmp_path)} "})
    COMMANDS[command](data, tmp_path / "out")
    assert {path.parent.name for path in (tmp_path / "out").rglob("*") if path.is_file()} <= {"out", "train", "test", "vocabulary"}


@pytest.mark.parametrize("name", ["label", "@weight", "a\x1b[31mb", "a\nb"])
def test_a_feature_that_no_feature_can_be_named_is_refused(data, name):
    rename(data, {"C1": name})
    with pytest.raises(UserError, match=r"manifest\.json: .*feature"):
        load_manifest(str(data))


@pytest.mark.parametrize(
    "path", ["../victim/part-1.parquet", "train/../../victim/part-1.parquet", "{}/victim/part-1.parquet", "train/a\nb"]
)
def test_a_shard_lies_in_the_data_set(data, tmp_path, path):
    def move(manifest: dict[str, Any]) -> None:
        manifest["splits"]["train"]["shards"][0]["path"] = path.format(tmp_path)

    change(data, move)
    with pytest.raises(UserError, match=r"manifest.json: .*splits\.train\.shards\.0"):
        COMMANDS["export"](data, tmp_path / "out")


@pytest.mark.parametrize("command", [*COMMANDS.values(), preprocess], ids=[*COMMANDS, "preprocess"])
def test_a_link_in_the_output_is_refused(data, tmp_path, victim, command):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train").symlink_to(victim)
    with pytest.raises(UserError, match=r"out/train: .*link"):
        command(data, tmp_path / "out")


@pytest.mark.parametrize("name", [".work", ".work/stdin", ".work/export/train"])
@pytest.mark.parametrize("command", [*COMMANDS.values(), preprocess], ids=[*COMMANDS, "preprocess"])
def test_a_link_in_the_work_in_progress_is_refused(data, tmp_path, victim, command, name):
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).symlink_to(victim)
    with pytest.raises(UserError, match=rf"out/{name}: .*link"):
        command(data, tmp_path / "out")


def test_a_linked_output_folder_and_linked_data_are_a_user_s_own_choice(data, tmp_path, victim):
    (data / "train").rename(data / "disk2")
    (data / "train").symlink_to(data / "disk2")
    (data / "real").mkdir()
    (tmp_path / "out").symlink_to(data / "real")
    COMMANDS["export"](data, tmp_path / "out")
    assert (data / "real" / "export.json").exists()


def test_a_user_s_own_files_beside_a_data_set_stay(tmp_path):
    write_csv(tmp_path / "log.csv", make_rows(60))
    own = [f"{folder}/{name}" for folder in ("train", "test", "vocabulary", "rejects") for name in ("thesis.tex", "part-1.tsv")]
    for name in own:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("precious")
    given = {"schema": schema(), "where": "s.yaml", "min_count": 1, "workers": 1}
    for overwrite in (False, True):
        pipeline.preprocess(Options([str(tmp_path / "log.csv")], str(tmp_path / "out"), overwrite=overwrite, **given))
        assert all((tmp_path / "out" / name).read_text() == "precious" for name in own)


def test_an_old_data_set_s_files_go_when_it_is_overwritten(tmp_path):
    write_csv(tmp_path / "log.csv", make_rows(200))
    given = {"schema": schema(), "where": "s.yaml", "min_count": 1, "workers": 1, "overwrite": True}
    for size in (20, 500):
        pipeline.preprocess(Options([str(tmp_path / "log.csv")], str(tmp_path / "out"), rows_per_shard=size, **given))
    shards = [shard.path for split in load_manifest(str(tmp_path / "out")).splits.values() for shard in split.shards]
    found = [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("part-*.parquet")]
    assert sorted(found) == sorted(shards)


def test_a_feature_may_be_named_as_the_inside_of_another_one_s_list(tmp_path):
    columns = {"a": pa.array([[1, 2], [3]], pa.list_(pa.int32())), "a.list.element": pa.array([4, 5], pa.int32()), "a.b": pa.array([6, 7])}
    table = pa.table(columns)
    write_shard(str(tmp_path / "out"), table, 10, many={"a"})
    assert pq.read_table(tmp_path / "out").to_pylist() == table.to_pylist()
