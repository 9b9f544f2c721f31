"""A published figure is what its command printed, with machine, date and commit; every command is a file of this repository."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from dmoe.errors import UserError
from tools.bench.figures import KEPT, ROOT, WHAT, main

SPEC = """
two: {question: q, command: "python -c 'print(\\"a 1.5 times\\"); print(\\"b 2 times\\")'", pattern: '([\\d.]+) times', target: t}
none: {question: q, command: "python -c 'print(3)'", pattern: 'x(\\d)', target: t}
"""


def test_a_figure_is_what_its_command_prints(tmp_path: Path) -> None:
    (what, kept) = tmp_path / "figures.yaml", tmp_path / "figures.json"
    what.write_text(SPEC)
    with pytest.raises(UserError, match="none: exit code 0"):
        main(["two", "none"], what, kept)
    told = json.loads(kept.read_text())
    assert list(told) == ["two"]
    assert told["two"]["value"] == "1.5, 2"
    assert all(told["two"][key] for key in ("machine", "date", "commit"))
    what.write_text(SPEC.replace("print(3)", 'print(\\"x3\\"); raise SystemExit(1)'))
    with pytest.raises(UserError, match="none: exit code 1"):
        main(["none"], what, kept)
    assert list(json.loads(kept.read_text())) == ["two"]
    with pytest.raises(UserError, match=r"tow: .*'two'"):
        main(["tow"], what, kept)


def test_every_figure_has_a_command_of_this_repository() -> None:
    figures = yaml.safe_load(WHAT.read_text())
    assert not json.loads(KEPT.read_text()).keys() - figures.keys()
    for figure in figures.values():
        words = shlex.split(figure["command"])
        assert (ROOT / (f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1])).exists()
        assert set(figure) == {"question", "command", "pattern", "target"}
