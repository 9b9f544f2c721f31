"""docs/cluster.md is true: its commands are run as printed in a copy of the repository, on the Slurm cluster that they start.

About eight minutes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.endtoend.guide import commands_of, run
from tests.endtoend.needs import or_skip
from tests.endtoend.slurm_cluster import why_not

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/cluster.md"
FOLDER = "/tmp/dmoe-slurm"


def test_a_guide_s_commands_are_found_with_what_is_printed_below_them():
    first, second = commands_of(
        "Words:\n\n    $ one \\\n        --more\n    said 3 times,\n    on two lines\n\nWords.\n\n    $ two\n\n    no output\n"
    )
    assert (first.text, first.printed) == ("one \\\n        --more", ["    said 3 times,", "    on two lines"])
    assert (second.text, second.printed) == ("two", [])
    first.said = "said  17 times, on\nanother line"
    assert first.missing == ["    on two lines"]


def test_a_shell_stops_at_the_first_command_that_ends_otherwise_than_printed(tmp_path):
    text = "    $ sleep 300 & echo ready\n    $ exit_code() { return $1; }\n    $ exit_code 2\n    launch/components.py: wrong\n"
    commands = commands_of(text + "    $ exit_code 3\n    $ echo never\n")
    run(commands, tmp_path, tmp_path / "said.txt", dict(os.environ), 60)
    assert [command.code for command in commands] == [0, 0, 2, 3, None]


@pytest.mark.slow
@pytest.mark.timeout(2400)
@or_skip("TEST OF THE GUIDE", why_not())
def test_the_guide_s_commands_do_what_is_printed(tmp_path):
    copy = tmp_path / "dmoe"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    commands = commands_of(GUIDE.read_text().replace(FOLDER, str(tmp_path / "slurm")))
    run(commands, copy, tmp_path / "said.txt", {**os.environ, "PYTHONPATH": str(copy)}, 2300)
    for command in commands:
        assert command.code == command.expected, f"$ {command.text}\n{command.said[-3000:]}"
        assert not command.missing, f"$ {command.text}\n{command.said[-3000:]}"
    assert len(commands) > 35

    said = "".join(command.said for command in commands if re.match("torchx log|cat slurm", command.text))
    trained, evaluated = (re.sub(r"test of step [\d,]+: ", "", line) for line in re.findall(r"test of step .*", said))
    assert trained == evaluated, "another number of ranks, the same figures"
