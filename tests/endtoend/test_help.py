"""Every program tells how it is used before it imports what takes seconds (tools/bench/startup.py times it)."""

import os
import subprocess
import sys

import pytest

from tools.bench.startup import ROOT, programs

SLOW = {"torch", "torchrec", "fbgemm_gpu", "pyarrow", "numba", "ray", "pandas", "matplotlib", "scipy"}


@pytest.mark.parametrize("program", programs(), ids=" ".join)
def test_help_comes_before_what_takes_long_to_import(program):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & SLOW
