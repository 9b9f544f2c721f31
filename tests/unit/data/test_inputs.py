"""A log makes the same data set from files, from standard input and from S3, and lies as well on S3; days are split by day."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from iopath.common.file_io import PathHandler

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.split.split_rules import day_cuts
from dmoe.data.prepare.write import output_folder as publishing
from dmoe.errors import UserError
from dmoe.storage.paths import PATHS
from dmoe.testing.synthesize import synthesize
from tests.log_files import criteo, pipe
from tests.s3_server import s3_server
from tests.unit.data.test_preprocess import digest, run


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("log") / "day_0.tsv"
    synthesize(str(path), 2000, seed=7, scale=0.001, bad_share=0.02)
    return path


@pytest.fixture(scope="module")
def expected(log, tmp_path_factory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("expected")
    run([log], output / "d")
    return digest(output / "d")


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_standard_input(log, tmp_path, expected, monkeypatch, compression):
    data = log.read_bytes()
    if compression:
        data = pa.Codec(compression).compress(data, asbytes=True)
    pipe(monkeypatch, data)
    run(["-"], tmp_path / "d", block_bytes=50_000)
    assert digest(tmp_path / "d") == expected
    assert load_manifest(str(tmp_path / "d")).made_by["inputs"] == [{"path": "-", "bytes": len(data)}]
    pipe(monkeypatch, data)
    assert run(["-"], tmp_path / "d").already_there
    pipe(monkeypatch, data + data)
    with pytest.raises(UserError, match=r"--output .*--overwrite"):
        run(["-"], tmp_path / "d")


def test_a_killed_run_goes_on_when_the_same_bytes_come_in_again(log, tmp_path, expected, monkeypatch):
    import dmoe.data.prepare.stages as module
    from dmoe.data.prepare.parse.typed_text import TypedText

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    pipe(monkeypatch, log.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shards", killed)
        with pytest.raises(Killed):
            run(["-"], tmp_path / "d")
    pipe(monkeypatch, log.read_bytes())
    monkeypatch.setattr(TypedText, "encode", killed)
    run(["-"], tmp_path / "d")
    assert digest(tmp_path / "d") == expected


def test_standard_input_stands_alone_and_may_not_be_empty(log, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--input .*-"):
        run(["-", log], tmp_path / "d")
    pipe(monkeypatch, b"")
    with pytest.raises(UserError, match="--input -: empty"):
        run(["-"], tmp_path / "d")


def test_from_s3_to_s3(log, tmp_path, expected, monkeypatch):
    data = log.read_bytes()
    cut = data.index(b"\n", len(data) // 2) + 1
    with s3_server(monkeypatch) as client:
        client.put_object(Bucket="logs", Key="raw/day_2.tsv", Body=data[:cut])
        client.put_object(Bucket="logs", Key="raw/day_10.tsv.zst", Body=pa.Codec("zstd").compress(data[cut:], asbytes=True))
        client.put_object(Bucket="logs", Key="raw/notes.txt", Body=b"not a log")
        pattern, target = "s3://logs/raw/day_*", "s3://logs/made"
        run([pattern], tmp_path / "d", block_bytes=50_000)
        assert digest(tmp_path / "d") == expected

        with pytest.raises(UserError, match=r"s3://logs/.*--work"):
            preprocess(criteo([pattern], target))
        options = criteo(
            [pattern], target, min_count=3, max_bad_share=0.5, rows_per_shard=700, row_group_rows=128, work=str(tmp_path / "w")
        )
        upload, left = publishing._upload, [5]

        def cut_off(*paths):
            left[0] -= 1
            if not left[0]:
                raise UserError("cut off")
            upload(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(publishing, "_upload", cut_off)
            with pytest.raises(UserError, match="cut off"):
                preprocess(options)
        assert not PATHS.exists(f"{target}/manifest.json")
        preprocess(options)
        assert not (tmp_path / "w").exists()
        assert preprocess(options).already_there
        keys = {one["Key"] for one in client.list_objects_v2(Bucket="logs", Prefix="made/")["Contents"]}
        assert keys == {f"made/{path.relative_to(tmp_path / 'd')}" for path in (tmp_path / "d").rglob("*") if path.is_file()}
        for key in keys - {"made/manifest.json"}:
            with PATHS.open(f"s3://logs/{key}", "rb") as file:
                assert file.read() == (tmp_path / "d" / key.removeprefix("made/")).read_bytes()
        manifest = load_manifest(target)
        assert manifest.splits == load_manifest(str(tmp_path / "d")).splits

        kept = [
            run([pattern], tmp_path / name, scoring=True, vocabulary=where) for name, where in (("k", target), ("l", str(tmp_path / "d")))
        ]
        assert kept[0].manifest.splits == kept[1].manifest.splits

        client.put_object(Bucket="logs", Key="raw/day_2.tsv", Body=data[:cut].replace(b"\t0", b"\t1", 1))
        with pytest.raises(UserError, match=r"--output .*--overwrite"):
            preprocess(options)
        with pytest.raises(UserError, match=r"s3://logs/raw/nothing_\*: "):
            run(["s3://logs/raw/nothing_*"], tmp_path / "e")
        with pytest.raises(UserError, match=r"s3://logs/raw: .*'/'"):
            run(["s3://logs/raw"], tmp_path / "e")
    with pytest.raises(UserError, match="gopher://"):
        run(["gopher://logs/raw"], tmp_path / "e")


class Shelf(PathHandler):
    """shelf://x is the file x of a local folder: a handler as a user may register it, that knows no entity tags."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _get_supported_prefixes(self):
        return ["shelf://"]

    def _at(self, path):
        return self.folder / path.removeprefix("shelf://")

    def _open(self, path, mode="r", buffering=-1, **_):
        return open(self._at(path), mode, buffering)

    def _isfile(self, path, **_):
        return self._at(path).is_file()

    def _ls(self, path, **_):
        return [one.name for one in self._at(path).iterdir()]


def test_any_handler_of_iopath(log, tmp_path, expected):
    PATHS.register_handler(Shelf(log.parent), allow_override=True)
    try:
        run(["shelf://day_?.tsv"], tmp_path / "d", block_bytes=60_000)
        assert digest(tmp_path / "d") == expected
        assert run(["shelf://day_0.tsv"], tmp_path / "d").already_there
    finally:
        del PATHS._path_handlers["shelf://"]


def test_a_file_that_grows_while_it_is_read_is_refused(log, tmp_path, monkeypatch):
    import dmoe.data.prepare.stages as module

    path, staged = tmp_path / "log.tsv", module.parse_files
    path.write_bytes(log.read_bytes())

    def growing(*arguments):
        parts = staged(*arguments)
        path.write_bytes(log.read_bytes() * 2)
        return parts

    with monkeypatch.context() as patch:
        patch.setattr(module, "parse_files", growing)
        with pytest.raises(UserError, match=r"log\.tsv: changed"):
            run([path], tmp_path / "d")
    assert run([path], tmp_path / "d").lines > 4000


def test_days_are_split_by_day(log, tmp_path):
    lines = log.read_bytes().splitlines(keepends=True)
    days = [tmp_path / f"day_{day}.tsv" for day in (0, 1, 2, 10)]
    for day, begin in zip(days, range(0, 2000, 500), strict=True):
        day.write_bytes(b"".join(lines[begin : begin + 500]))
    options = {"max_bad_share": 0.5, "min_count": 1, "split_by": "day"}
    whole = run(days, tmp_path / "time", **options | {"split_by": "time", "split": "1,0,0"}).manifest
    rows = [day["rows"] for day in whole.made_by["days"]]
    result = run(days[::-1], tmp_path / "d", **options)
    splits = result.manifest.splits
    assert [split.rows for split in splits.values()] == [sum(rows[:3]), rows[3] // 2, rows[3] - rows[3] // 2]
    assert sum(split.positives for split in splits.values()) == sum(day["positives"] for day in result.manifest.made_by["days"])
    assert [day["name"] for day in result.manifest.made_by["days"]] == [day.name for day in days]
    order = [read(tmp_path / "d", name) for name in ("train", "validation", "test")]
    assert pa.concat_tables(order)["I1"].equals(read(tmp_path / "time", "train")["I1"])

    manifest = run(days, tmp_path / "e", validation_days=1, test_days=1, **options).manifest
    assert [split.rows for split in manifest.splits.values()] == [sum(rows[:2]), rows[2], rows[3]]
    assert json.loads((tmp_path / "e" / "manifest.json").read_text())["made_by"]["validation_days"] == 1
    with pytest.raises(UserError, match="--split-by day: 1 "):
        run(days[:1], tmp_path / "f", **options)


def read(folder: Path, split: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / split).iterdir())])


@pytest.mark.parametrize(
    ("rows", "held", "cuts"),
    [
        ([5, 4], (0, 0), (5, 7)),
        ([5, 3], (0, 0), (5, 6)),
        ([5, 3, 2], (1, 1), (5, 8)),
        ([5, 3, 2], (0, 2), (5, 5)),
        ([5, 3], (1, 0), (5, 8)),
    ],
)
def test_where_days_are_cut(rows, held, cuts):
    assert day_cuts(rows, *held) == cuts
