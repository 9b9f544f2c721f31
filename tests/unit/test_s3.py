"""Objects of an S3 server are read in ranges, by anyone's credentials, and a change underneath is noticed."""

import io
import subprocess
import sys

import numpy as np
import pytest

from dmoe.data.prepare.source.raw_bytes import expand
from dmoe.errors import UserError
from dmoe.serve.score_dataset import write_scores
from dmoe.storage.paths import PATHS, Paths
from tests.s3_server import s3_server


@pytest.fixture
def client(monkeypatch):
    with s3_server(monkeypatch) as client:
        yield client


def test_an_object_is_read_in_ranges(client):
    data = bytes(range(256)) * 1000
    client.put_object(Bucket="logs", Key="day/a", Body=data)
    raw = PATHS.open("s3://logs/day/a", "rb", buffering=0)
    asked = []
    served = PATHS.handler("s3://logs")._get_client("logs")
    get = served.get_object
    served.get_object = lambda **request: asked.append(request["Range"]) or get(**request)
    try:
        raw.seek(1000)
        assert raw.read(5000) == data[1000:6000]
        raw.seek(-10, io.SEEK_END)
        assert raw.read(100) == data[-10:]
        assert raw.read(1) == b""
    finally:
        del served.get_object
    assert asked == ["bytes=1000-5999", f"bytes={len(data) - 10}-{len(data) - 1}"]
    with PATHS.open("s3://logs/day/a", "rb") as file:
        assert file.read() == data


def test_text_is_written_and_read_back(client):
    with PATHS.open("s3://logs/x.json", "w") as file:
        file.write('{"a": "ä"}\n')
    with PATHS.open("s3://logs/x.json", "r") as file:
        assert file.read() == '{"a": "ä"}\n'


def test_an_object_that_changes_while_it_is_read_is_an_error_and_an_absent_one_is_absent(client):
    client.put_object(Bucket="logs", Key="a", Body=b"first")
    raw = PATHS.open("s3://logs/a", "rb", buffering=0)
    client.put_object(Bucket="logs", Key="a", Body=b"other")
    with pytest.raises(OSError, match=r"s3://logs/a: .*[Pp]recondition"):
        raw.read(5)
    assert not PATHS.exists("s3://logs/b")
    with pytest.raises(FileNotFoundError):
        PATHS.open("s3://logs/b", "rb")


def test_a_refused_score_file_leaves_no_object_and_what_was_there_stays(client):
    def rows():
        yield np.zeros(3, np.float32), None
        yield np.array([np.nan], np.float32), None

    client.put_object(Bucket="logs", Key="scores/old.csv", Body=b"as it was")
    for name in ("new.csv", "new.parquet", "old.csv"):
        with pytest.raises(UserError, match="nan at row 3"):
            write_scores(f"s3://logs/scores/{name}", rows())
    # The server keeps what other tests of this process put into the bucket.
    found = client.list_objects_v2(Bucket="logs", Prefix="scores/")["Contents"]
    assert [one["Key"] for one in found] == ["scores/old.csv"]
    assert client.get_object(Bucket="logs", Key="scores/old.csv")["Body"].read() == b"as it was"
    write_scores("s3://logs/scores/old.csv", iter([(np.zeros(1, np.float32), None)]))
    assert client.get_object(Bucket="logs", Key="scores/old.csv")["Body"].read() == b"score,logit\n0.5,0\n"


def test_a_prefix_is_a_folder(client):
    for key in ("runs/a/x.json", "runs/a/deep/y.json", "runs/ab", "marked/", "marked/z"):
        client.put_object(Bucket="logs", Key=key, Body=b"1")
    for folder in ("s3://logs/runs/a", "s3://logs/runs/a/"):
        assert sorted(PATHS.ls(folder)) == ["deep", "x.json"]
        assert (PATHS.exists(folder), PATHS.isdir(folder), PATHS.isfile(folder)) == (True, True, False)
    assert sorted(PATHS.ls("s3://logs/runs")) == ["a", "ab"]
    assert PATHS.ls("s3://logs/marked") == ["z"]
    assert (PATHS.isfile("s3://logs/runs/ab"), PATHS.isdir("s3://logs/runs/ab")) == (True, False)
    assert (PATHS.ls("s3://logs/none"), PATHS.exists("s3://logs/none")) == ([], False)


def test_an_unreachable_server_is_one_error(client, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    PATHS.handler("s3://").__dict__.pop("client", None)
    with pytest.raises(OSError, match="s3://logs/a: "):
        PATHS.exists("s3://logs/a")


def test_boto3_waits_for_the_first_path_of_s3():
    said = "import sys; from dmoe.storage import paths as p; p.PATHS.exists('/tmp'); "
    said += "print('boto3' in sys.modules, p.PATHS.handler('s3://b/k') is not None)"
    done = subprocess.run([sys.executable, "-c", said + "; print('boto3' in sys.modules)"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


def test_without_boto3_a_path_of_s3_is_refused_in_one_line_and_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dmoe.storage.s3", None)
    monkeypatch.setattr("dmoe.data.prepare.source.raw_bytes.PATHS", Paths())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--input s3://logs/a: .*dmoe\[s3\]"):
        expand("s3://logs/a")
    with pytest.raises(UserError, match=r"^s3://logs/b: .*dmoe\[s3\]"):
        Paths().mkdirs("s3://logs/b")
    assert not list(tmp_path.iterdir())
