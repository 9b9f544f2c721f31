"""torchrun's own command line: killed, it restarts and ends equal; told to stop by SIGTERM, it leaves a checkpoint and goes on later."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmoe.testing.small_data import make_data_set
from tests.distributed.test_faults import CONFIG
from tests.endtoend.ranks import ranks_of
from tests.signs_of_life import besides

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "data").mkdir()
    make_data_set(folder / "data")
    (folder / "config.yaml").write_text(CONFIG.replace("batch_size: 64", "batch_size: 64, epochs: 3"))

    def start(name, *options, train=None):
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
        torchrun += ["--rdzv-endpoint", "localhost:0", *options, "-m", "dmoe.train"]
        torchrun = [sys.executable, *(train or [*torchrun, "--resume"]), "--config", str(folder / "config.yaml")]
        torchrun += ["--set", f"data.path={folder}/data", "--set", f"run.dir={folder}/{name}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(torchrun, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    start.folder = folder
    return start


def until_step(run: Path, step: int) -> None:
    """Waits until a checkpoint of the step, or a later one, is published."""
    end = time.monotonic() + 900
    while time.monotonic() < end:
        if any(int(path.parent.name[5:]) >= step for path in run.glob("checkpoints/step-*/index.json")):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no checkpoint of step {step} in {run}")


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "tools/checkpoint.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def straight(command):
    """The folder of a run that nothing stopped."""
    started = command("straight")
    said = started.communicate()[1]
    assert started.returncode == 0, said
    return command.folder / "straight"


@pytest.mark.slow
def test_killed_and_preempted_under_torchrun(command, straight):
    killed = command("killed", "--max-restarts", "2")
    until_step(command.folder / "killed", 20)
    os.kill(ranks_of(killed.pid)[1], signal.SIGKILL)
    assert "resuming from step" in killed.communicate()[1]
    assert killed.returncode == 0
    same = tool("diff", str(straight), f"{command.folder}/killed")
    assert same.returncode == 0, same.stdout

    stopped = command("stopped")
    until_step(command.folder / "stopped", 20)
    stopped.send_signal(signal.SIGTERM)
    said = stopped.communicate(timeout=600)[1]
    assert stopped.returncode != 0
    assert "asked to stop (SIGTERM): kept a checkpoint of step" in said
    again = command("stopped")
    assert "resuming from step" in again.communicate()[1]
    assert again.returncode == 0
    same = tool("diff", str(straight), f"{command.folder}/stopped")
    assert same.returncode == 0, same.stdout


@pytest.mark.slow
def test_a_prompt_resume_after_the_launcher_alone_was_killed(command, straight):
    """Its ranks end, and the next training begins when they have: no step is written twice, and the run ends as if nothing had been."""
    agent = command("orphaned")
    until_step(command.folder / "orphaned", 20)
    ranks = [os.pidfd_open(pid) for pid in ranks_of(agent.pid)]
    assert len(ranks) == 2
    os.kill(agent.pid, signal.SIGKILL)
    again = command("orphaned")
    said = again.communicate()[1]
    assert again.returncode == 0, said
    assert "resuming from step" in said
    assert len(select.select(ranks, [], [], 0)[0]) == 2
    agent.communicate()
    same = tool("diff", str(straight), f"{command.folder}/orphaned")
    assert same.returncode == 0, same.stdout
    assert steps_of(command.folder / "orphaned") == steps_of(straight)


@pytest.mark.slow
def test_of_two_trainings_in_one_directory_at_once_one_ends(command):
    both = [command("two", train=["-m", "dmoe.train"]) for _ in range(2)]
    ends = sorted((one.communicate()[1], one.returncode) for one in both)
    codes = {code: said for said, code in ends}
    assert set(codes) == {0, 2}, ends
    (line,) = besides(codes[2])
    assert line.startswith("dmoe.train: run.dir: ")
    assert steps_of(command.folder / "two") == sorted(steps_of(command.folder / "two"))
    assert tool("verify", f"{command.folder}/two").returncode == 0


def steps_of(run: Path) -> list[tuple[int, str]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["kind"]) for line in lines]


def test_the_tool_s_exit_codes(tmp_path):
    """2 for what is no checkpoint, with one line and no traceback."""
    for arguments in (["inspect", str(tmp_path)], ["verify", "/nowhere"], ["export", str(tmp_path), "--output", str(tmp_path / "x")]):
        result = tool(*arguments)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("tools/checkpoint.py: ")
