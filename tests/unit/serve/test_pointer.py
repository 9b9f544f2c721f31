"""dmoe versions: a pointer file's scorers are tried out before they answer, and the way back is kept."""

from pathlib import Path

import pytest

from dmoe.cli.main import main
from dmoe.serve.export.delta import make_delta
from dmoe.serve.pointer import KEPT, publish, read_pointer
from dmoe.serve.scorer import Scorer
from dmoe.serve.server.versions import folder_of, load_version
from tests.unit.serve.test_scorer import make


@pytest.fixture
def pointer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / "scorers" / name).mkdir(parents=True)
        make(tmp_path / "scorers" / name)
    return tmp_path / "scorers" / "current"


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    code = main(["versions", *words])
    out = capsys.readouterr()
    return code, out.out.splitlines() + out.err.splitlines()


def test_publish_and_back(pointer, capsys):
    at = ["--pointer", "scorers/current"]
    for name in ("a", "b", "c"):
        assert told(capsys, "publish", "--as-it-is", *at, f"scorers/{name}")[0] == 0
        assert folder_of("scorers/current", "") == f"scorers/{name}"
    assert told(capsys, "show", *at) == (0, ["current  c", "before   b", "before   a"])
    assert told(capsys, "rollback", *at) == (0, ["current  b", "before   a"])
    assert folder_of("scorers/current", "") == "scorers/b"
    assert told(capsys, "publish", "--as-it-is", *at, str(pointer.parent / "c"))[1][0] == f"current  {pointer.parent / 'c'}"
    assert told(capsys, "rollback", *at, "--to", "a") == (0, ["current  a"])
    code, (line,) = told(capsys, "rollback", *at)
    assert (code, "no version before a" in line) == (2, True)


@pytest.mark.slow
def test_what_is_published_has_its_graphs_but_for_what_deltas_begin_with(pointer, capsys):
    pytest.importorskip("onnxscript")
    at = ["publish", "--pointer", "scorers/current"]
    assert told(capsys, *at, "scorers/a")[0] == 0
    assert Scorer("scorers/a").engine == "onnx"
    make_delta("scorers/b", "scorers/c", "b", "scorers/d")
    assert told(capsys, *at, "scorers/b")[0] == 0
    assert Scorer("scorers/b").engine == "torch"


def test_what_cannot_be_loaded_is_not_published_and_not_gone_back_to(pointer, capsys):
    for name in ("a", "b", "c"):
        publish(str(pointer), f"scorers/{name}", load_version)
    before = pointer.read_text()
    (pointer.parent / "b" / "tables.safetensors").write_bytes(b"no")
    for words in (["rollback"], ["publish", "scorers/b"], ["publish", "nothing"], ["rollback", "--to", "z"]):
        code, (line,) = told(capsys, *words, "--pointer", "scorers/current")
        assert code == 2
        assert words[-1] in line or "tables.safetensors" in line
        assert pointer.read_text() == before
    assert told(capsys, "show", "--pointer", "none")[0] == 2


def test_a_pointer_remembers_so_many(pointer):
    pointer.write_text("".join(f"old{index}\n" for index in range(KEPT + 5)))
    publish(str(pointer), "scorers/a", load_version)
    assert read_pointer(str(pointer)) == ["a", *(f"old{index}" for index in range(KEPT))]
