"""Stores that fsspec knows, by the one that it keeps in memory: read in ranges, listed, prepared from, and what is missing is named."""

import io

import fsspec
import numpy as np
import pytest

from dmoe.cli.main import main
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.source.raw_bytes import expand, identity
from dmoe.errors import UserError
from dmoe.serve.score_dataset import write_scores
from dmoe.storage.paths import PATHS

LINES = b"click,site,user\n" + b"".join(b"%d,s%d,u%d\n" % (row % 3 == 0, row % 5, row % 7) for row in range(300))


@pytest.fixture
def store():
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield memory
    memory.store.clear()


def test_an_object_is_read_in_ranges(store, monkeypatch):
    data = bytes(range(256)) * 1000
    store.pipe_file("/logs/a", data)
    asked = []
    fetch = type(store).cat_file
    monkeypatch.setattr(type(store), "cat_file", lambda self, path, start, end: asked.append((start, end)) or fetch(self, path, start, end))
    raw = PATHS.open("memory://logs/a", "rb", buffering=0)
    raw.seek(1000)
    assert raw.read(5000) == data[1000:6000]
    raw.seek(-10, io.SEEK_END)
    assert raw.read(100) == data[-10:]
    assert asked == [(1000, 6000), (len(data) - 10, len(data))]


def test_text_goes_and_comes_and_folders_are_listed(store):
    with PATHS.open("memory://logs/day/x.json", "w") as file:
        file.write('{"a": "ä"}\n')
    with PATHS.open("memory://logs/day/x.json", "r") as file:
        assert file.read() == '{"a": "ä"}\n'
    store.pipe_file("/logs/day/y.csv", b"1")
    assert PATHS.ls("memory://logs/day") == ["x.json", "y.csv"]
    assert expand("memory://logs/day/*.csv") == ["memory://logs/day/y.csv"]
    with open(PATHS.get_local_path("memory://logs/day/y.csv"), "rb") as file:
        assert file.read() == b"1"
    with pytest.raises(FileNotFoundError):
        PATHS.open("memory://logs/none", "rb")


def test_other_contents_have_another_identity_and_a_cut_object_is_an_error(store):
    store.pipe_file("/logs/a", b"first")
    first, raw = identity("memory://logs/a"), PATHS.open("memory://logs/a", "rb", buffering=0)
    assert first[0] == 5
    store.pipe_file("/logs/a", b"two")
    assert identity("memory://logs/a") != first
    with pytest.raises(OSError, match=r"memory://logs/a: 3 .*5"):
        raw.read(5)


def test_a_log_is_prepared_from_it_as_from_a_disk(store, tmp_path):
    (tmp_path / "schema.yaml").write_text("label: click\ncategorical: [site, user]\n")
    (tmp_path / "log.csv").write_bytes(LINES)
    store.pipe_file("/logs/log.csv", LINES)
    manifests = []
    for name, path in (("disk", str(tmp_path / "log.csv")), ("store", "memory://logs/log.csv")):
        output = str(tmp_path / name)
        assert main(["preprocess", "log", "--schema", str(tmp_path / "schema.yaml"), "--input", path, "--output", output]) == 0
        manifests.append(load_manifest(output))
    assert manifests[0].split("train").rows
    assert manifests[0].splits == manifests[1].splits


@pytest.mark.parametrize(("path", "advice"), [("gs://logs/a", "dmoe[gs]"), ("az://logs/a", "dmoe[az]"), ("nowhere://logs/a", "s3://")])
def test_what_is_not_installed_is_named(path, advice):
    with pytest.raises(UserError) as refused:
        expand(path)
    assert str(refused.value).startswith(f"--input {path}: ")
    assert advice in str(refused.value)


@pytest.mark.parametrize("name", ["new.csv", "new.parquet", "old.csv"])
def test_a_refused_score_file_leaves_no_object_and_what_was_there_stays(store, name):
    def rows():
        yield np.zeros(3, np.float32), None
        yield np.array([np.nan], np.float32), None

    store.pipe_file("/logs/old.csv", b"as it was")
    with pytest.raises(UserError, match="nan at row 3"):
        write_scores(f"memory://logs/{name}", rows())
    assert {key: store.cat_file(key) for key in store.store} == {"/logs/old.csv": b"as it was"}
    write_scores(f"memory://logs/{name}", iter([(np.zeros(1, np.float32), None)]))
    assert store.cat_file(f"/logs/{name}") not in (b"", b"as it was")
