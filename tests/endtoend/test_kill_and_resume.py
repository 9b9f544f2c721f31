"""torchrun's own command line: killed, it restarts and ends equal; told to stop by SIGTERM, it leaves a checkpoint and goes on later."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmoe.testing.small_data import make_data_set
from tests.distributed.test_faults import CONFIG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "data").mkdir()
    make_data_set(folder / "data")
    (folder / "config.yaml").write_text(CONFIG.replace("batch_size: 64", "batch_size: 64, epochs: 3"))

    def start(name, *options):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
        torchrun += ["--rdzv-endpoint", "localhost:0", *options, "-m", "dmoe.train", "--config", str(folder / "config.yaml"), "--resume"]
        torchrun += ["--set", f"data.path={folder}/data", "--set", f"run.dir={folder}/{name}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(torchrun, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    start.folder = folder
    return start


def until_step(run: Path, step: int) -> None:
    """Waits until a checkpoint of the step, or a later one, is published."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if any(int(path.parent.name[5:]) >= step for path in run.glob("checkpoints/step-*/index.json")):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no checkpoint of step {step} in {run}")


def ranks_of(agent: int) -> list[int]:
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return [int(pid) for pid in children if b"dmoe.train" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "tools/checkpoint.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_killed_and_preempted_under_torchrun(command):
    straight = command("straight")
    assert straight.communicate()[0] is None
    assert straight.returncode == 0

    killed = command("killed", "--max-restarts", "2")
    until_step(command.folder / "killed", 20)
    os.kill(ranks_of(killed.pid)[1], signal.SIGKILL)
    assert "resuming from step" in killed.communicate()[1]
    assert killed.returncode == 0
    same = tool("diff", f"{command.folder}/straight", f"{command.folder}/killed")
    assert same.returncode == 0, same.stdout

    stopped = command("stopped")
    until_step(command.folder / "stopped", 20)
    stopped.send_signal(signal.SIGTERM)
    said = stopped.communicate(timeout=60)[1]
    assert stopped.returncode != 0
    assert "asked to stop (SIGTERM): kept a checkpoint of step" in said
    again = command("stopped")
    assert "resuming from step" in again.communicate()[1]
    assert again.returncode == 0
    same = tool("diff", f"{command.folder}/straight", f"{command.folder}/stopped")
    assert same.returncode == 0, same.stdout


def test_the_tool_s_exit_codes(tmp_path):
    """2 for what is no checkpoint, with one line and no traceback."""
    for arguments in (["inspect", str(tmp_path)], ["verify", "/nowhere"], ["export", str(tmp_path), "--output", str(tmp_path / "x")]):
        result = tool(*arguments)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("tools/checkpoint.py: ")
