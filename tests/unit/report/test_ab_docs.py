"""docs/serve.md on A/B tests is true: its split is one, and its commands print what stands below them."""

import re
import shlex
import textwrap
from pathlib import Path

from dmoe.cli.main import main, parse
from dmoe.serve.ab.split import read_split
from tests.endtoend.guide import commands_of

GUIDE = (Path(__file__).parents[3] / "docs/serve.md").read_text()


def test_the_guide_s_split_is_one(tmp_path):
    (found,) = re.findall(r"```yaml\n(test: .*?)```", GUIDE, re.DOTALL)
    (tmp_path / "split.yaml").write_text(found)
    split = read_split(str(tmp_path / "split.yaml"), "")
    assert split.shadow
    assert list(split.arms) == ["control", "deeper"]


def test_the_guide_s_plan_prints_what_stands_there_and_its_other_commands_are_some(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = [command for command in commands_of(GUIDE) if re.match(r"dmoe (ab|serve --split)", command.text)]
    (plan,) = [command for command in commands if command.text.startswith("dmoe ab plan")]
    assert main(shlex.split(plan.text)[1:]) == 0
    assert textwrap.indent(capsys.readouterr().out, "    ") in GUIDE
    for command in commands:
        parse(shlex.split(command.text)[1:])
    assert len(commands) == 3
