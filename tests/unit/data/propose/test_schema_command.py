"""`dmoe schema`: what it reads of a log, wherever the log is, what it prints, and its mistakes in one line."""

import io
import random
import shlex
from pathlib import Path

import pytest

from dmoe.cli.main import main
from dmoe.config.yaml_files import parse_yaml
from dmoe.data.prepare.propose import places
from dmoe.data.prepare.propose.proposal import propose
from dmoe.data.prepare.propose.sample import Asked
from dmoe.data.prepare.schema import load_schema, parse_schema, shipped
from dmoe.errors import UserError
from tests.log_files import pipe
from tests.s3_server import s3_server
from tests.unit.data.propose.proposing import NAMES, PLAIN, ROWS, plain_rows, run, tree_of, write


def test_a_log_in_order_is_sampled_from_its_start_to_its_end(tmp_path: Path):
    """The first rows are of one class and one site: what they are alone would be left out, and the price a token."""
    rows = 400_000
    with open(tmp_path / "log.csv", "w") as file:
        file.write("click,site,price\n")
        file.writelines(f"{int(n > rows // 3)},s{n * 4 // rows},{n // 1000 + (n > rows * 0.9) / 4}\n" for n in range(rows))
    text = propose([str(tmp_path / "log.csv")], Asked(rows=1000))
    tree = tree_of(text)
    assert (list(tree["categorical"]), list(tree["dense"])) == (["site"], ["price"])
    assert " 20 places " in text.splitlines()[0]
    assert "2 values" in next(line for line in text.splitlines() if line.startswith("label"))


def test_several_files_of_one_form_are_one_log(tmp_path: Path):
    for day in range(3):
        write(tmp_path / f"day_{day}.csv", [NAMES, *[[*row[:1], f"d{day}", *row[2:]] for row in plain_rows(200)]])
    text = propose([str(tmp_path / "day_*.csv")], Asked())
    assert list(tree_of(text)["categorical"]) == ["site", "weekday"]
    assert "- site  # 3 values" in text


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "log.csv", [NAMES, *plain_rows()])
    data = (tmp_path / "log.csv").read_bytes()
    pipe(monkeypatch, data)
    text = propose(["-"], Asked())
    assert tree_of(text) == PLAIN
    pipe(monkeypatch, data)
    run(tmp_path, text, "-")


def test_malformed_rows_are_told_and_the_command_lets_them_pass(tmp_path: Path):
    rows = plain_rows()
    rows[100] = ["1", "s1"]
    rows[200] = ["1", "s1", "0.5", "1", "too many"]
    text = propose([str(write(tmp_path / "log.csv", [NAMES, *rows]))], Asked())
    assert f"2 of {ROWS:,} sampled rows are malformed" in text
    assert "line 102" in text
    (tmp_path / "schema.yaml").write_text(text)
    words = shlex.split(next(line for line in text.splitlines() if line.startswith("#   dmoe "))[1:])
    words[words.index("schema.yaml")], words[words.index("--output") + 1] = str(tmp_path / "schema.yaml"), str(tmp_path / "d")
    assert main(words[1:]) == 0
    assert len(list((tmp_path / "d" / "rejects").iterdir())) == 1


def test_shipped_schemas_are_listed_and_shown(capsys: pytest.CaptureFixture[str]):
    assert main(["schema", "--list"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == shipped()
    for name in shipped():
        assert main(["schema", "--show", name]) == 0
        assert parse_schema(parse_yaml(capsys.readouterr().out), "s") == load_schema(name)


def test_the_command_prints_or_writes_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = str(write(tmp_path / "log.csv", [NAMES, *plain_rows()]))
    assert main(["schema", log]) == 0
    printed = capsys.readouterr().out
    assert main(["schema", log, "--output", str(tmp_path / "own.yaml")]) == 0
    assert tree_of((tmp_path / "own.yaml").read_text()) == tree_of(printed) == PLAIN
    assert f"--schema {tmp_path}/own.yaml" in (tmp_path / "own.yaml").read_text()


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that ends with exit code 2 and prints nothing."""
    assert main(["schema", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("dmoe schema: ")
    assert err.count("\n") == 1
    return err.removeprefix("dmoe schema: ").strip()


NOISE = random.Random(0).randbytes(5000)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ["log: empty"]),
        (b"\n\n\n", ["log: empty"]),
        (b"click,site\n", ["log: one line"]),
        (b"1,a,b\n", ["log: one line"]),
        (NOISE, ["log: is no text"]),
        ("click,stadt\n1,Köln\n0,Zürich\n".encode("latin-1"), ["log:2: byte 0xf6", "UTF-8"]),
        ("click,site\n1,a\n".encode("utf-16"), ["log: is UTF-16"]),
        (b"click,site," + b"x" * (2 << 20) + b"\n1,a,b\n", ["log:1: a line longer than 1 MiB"]),
        (b"click,a,a\n1,x,y\n0,x,y\n", ["two columns 'a'"]),
        (b"site\ns1\n\ns2\n", ["--delimiter"]),
        (b"1::2::3\n4::5::6\n", ["'::'"]),
        (b" 1   2\n 3  44\n", ["several spaces"]),
        (b'[\n{"click": 1}\n]\n', ["JSON array"]),
        (b'{\n"click": 1\n}\n', ["first line is not a whole JSON object"]),
        (b"install,purchase,s\n1,0,a\n0,1,b\n", ["--label", "'install'", "'purchase'"]),
        (b"click,s\ngood,a\nbad,b\n", ["--positive", "'click'", "'good'", "'bad'"]),
        (b"a,b\n1,x\n2,y\n3,z\n", ["--label", "'a'", "'b'"]),
        (b"click,site\n1,a\n0,a\n1,a\n", ["'site'", "same in every row"]),
    ],
)
def test_a_log_that_does_not_tell_is_one_line(tmp_path: Path, data: bytes, said: list[str], capsys: pytest.CaptureFixture[str]):
    (tmp_path / "log").write_bytes(data)
    message = error_of([str(tmp_path / "log")], capsys)
    assert all(word in message for word in said), message


def test_mistakes_of_the_command_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = str(write(tmp_path / "log.csv", [NAMES, *plain_rows(50)]))
    for arguments, said in (
        ([], "name a log"),
        (["--show", "crite"], "criteo"),
        ([log, "--sample", "0"], "--sample"),
        ([log, "--delimiter", "::"], "--delimiter"),
        ([log, "--label", "clck"], "'click'"),
        ([log, "--columns", "a,b", "--header", "no"], "--columns names 2"),
        ([log, "-"], "'-'"),
        ([str(tmp_path / "absent.csv")], "no such file"),
    ):
        assert said in error_of(arguments, capsys)


def test_stdin_that_never_ends_is_read_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from dmoe.data.prepare.source import raw_bytes as sources

    class Endless(io.RawIOBase):
        read_so_far = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.read_so_far += size
            return b"1,a\n" * (size // 4)

    source = Endless()
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": source})())
    path = sources.spool_start(str(tmp_path), most=3 << 20)
    assert Path(path).stat().st_size <= 5 << 20
    assert source.read_so_far <= 6 << 20


def test_a_log_on_s3_is_read_in_places_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(places, "FEWEST_BYTES", 1 << 14)
    data = "click,site\n" + "".join(f"{int(n > 9000)},s{n // 3000}\n" for n in range(12_000))
    with s3_server(monkeypatch, "proposed") as client:
        client.put_object(Bucket="proposed", Key="raw/day_0.csv", Body=data.encode())
        text = propose(["s3://proposed/raw/day_*"], Asked(rows=100))
        assert "2 values" in next(line for line in text.splitlines() if line.startswith("label"))
        assert " 20 places " in text
        assert "--input 's3://proposed/raw/day_*'" in text
        assert tree_of(text)["categorical"] == {"site": {}}
        with pytest.raises(UserError, match=r"s3://proposed/raw/none\.csv: "):
            propose(["s3://proposed/raw/none.csv"], Asked())
