"""A shorter run of the soak that docs/serve.md tells of: versions change under load, a worker is killed, and no request fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dmoe.testing.small_scorer import small_scorer
from tests.unit.serve.test_server import ROWS

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_no_request_fails_while_versions_change_and_a_worker_is_killed(tmp_path):
    scorers = [small_scorer(str(tmp_path / "a")), small_scorer(str(tmp_path / "b"), steps=5, seed=1)]
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    command = [sys.executable, "-m", "tools.bench.serve_soak", "--scorers", *scorers, "--rows", str(tmp_path / "rows.json")]
    command += ["--seconds", "20", "--every", "2", "--deadline-ms", "60000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1000, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed or mixed: 0" in done.stdout
    assert "came back" in done.stdout
