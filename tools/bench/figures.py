"""Makes published figures anew: runs their commands, and writes what they print into docs/figures.json with machine, date and commit.

    python -m tools.bench.figures                    # what there is, and when it was measured
    python -m tools.bench.figures help reader        # measures these; `all` for every one (hours)

tools/bench/figures.yaml has the commands; the documentation's page Figures is made of both files.
"""

import datetime
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dmoe.errors import UserError, nearest, run_command
from dmoe.json_text import format_json, parse_json
from tools.bench.results import ROOT, loads, machine, parser

WHAT, KEPT = ROOT / "tools/bench/figures.yaml", ROOT / "docs/figures.json"


def main(words: list[str] | None = None, what: Path = WHAT, kept: Path = KEPT) -> None:
    options = parser(__doc__)
    options.add_argument("figure", nargs="*", help="what to measure; `all` for every one")
    arguments = options.parse_args(words)
    figures = yaml.safe_load(what.read_text())
    known: dict[str, Any] = parse_json(kept.read_text()) if kept.exists() else {}
    for name in arguments.figure:
        if name not in (*figures, "all"):
            raise UserError(f"{name}: no such figure{nearest(name, list(figures))}; {what.name} has {', '.join(figures)}")
    for name in figures if "all" in arguments.figure else arguments.figure:
        known[name] = measure(name, figures[name])
        # Each one at once: a later command may fail, or be interrupted.
        kept.write_text(format_json(dict(sorted(known.items())), indent=1) + "\n")
    for name in figures:
        told = known.get(name, {"value": "not measured yet", "date": ""})
        print(f"{name:20} {told['value']:24} {told['date']}")


def measure(name: str, figure: Mapping[str, str]) -> dict[str, str]:
    """Runs a figure's command, showing its output, and reads the figure out of it.

    Raises:
        UserError: the command fails, whatever it printed before, or prints no such figure.
    """
    command = shlex.split(figure["command"])
    load, lines = loads(), []
    with subprocess.Popen([sys.executable, *command[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    found = [part for match in re.finditer(figure["pattern"], "".join(lines)) for part in match.groups()]
    if process.returncode or not found:
        raise UserError(
            f"{name}: exit code {process.returncode}, {len(found)} match(es) of {figure['pattern']!r} in what the command printed"
        )
    return {
        "value": ", ".join(found),
        "machine": f"{machine()}, load {load} before",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
    }


def _commit() -> str:
    """The checkout's commit; `-dirty` where a tracked file other than the figures differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{KEPT.relative_to(ROOT)}")
    return git("rev-parse", "--short", "HEAD") + "-dirty" * bool(changed)


if __name__ == "__main__":
    sys.exit(run_command("tools.bench.figures", main))
