"""Every program tells how it is used before it imports what takes seconds (tools/bench/startup.py times it)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmoe.cli.main import every_command

ROOT = Path(__file__).resolve().parents[2]

SLOW = {"torch", "torchrec", "fbgemm_gpu", "pyarrow", "numba", "ray", "pandas", "matplotlib", "scipy"}


def programs() -> list[list[str]]:
    """What follows `python` of every command, the programs in tools/, and the benchmarks."""
    tools = [[f"tools/{file.name}"] for file in sorted(ROOT.glob("tools/*.py"))]
    benches = [file.stem for file in sorted(ROOT.glob("tools/bench/*.py")) if ".parse_args(" in file.read_text() and file.stem != "worker"]
    modules = [
        "dmoe",
        "dmoe.accept",
        "dmoe.train",
        "dmoe.evaluate",
        "dmoe.train.rehearsal.measure",
        *(f"tools.bench.{name}" for name in benches),
    ]
    return tools + [["-m", name] for name in modules] + [["-m", "dmoe", *words] for words in every_command()]


@pytest.mark.parametrize("program", programs(), ids=" ".join)
def test_help_comes_before_what_takes_long_to_import(program):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    # A benchmark is no command: it may take its time.
    assert "tools.bench" in " ".join(program) or not imported & SLOW
