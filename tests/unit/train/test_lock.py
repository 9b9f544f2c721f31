"""One training at a time in a run's directory, and none that goes on without its launcher."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmoe.errors import UserError
from dmoe.storage.lock import share, take
from dmoe.train.run import run_dir
from dmoe.train.run.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from dmoe.train.run.run_dir import RunDir
run = RunDir(sys.argv[1])
run.lock()
print("locked", flush=True)
time.sleep(600)
"""
# A launcher of one rank, which tells its process and then outlives any test.
LAUNCH = '''
import os, subprocess, sys, time
rank = """import time
from dmoe.train.elastic.exit_codes import run_rank
run_rank("dmoe.train", lambda: (print("runs", flush=True), time.sleep(600)))"""
child = subprocess.Popen([sys.executable, "-c", rank], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
'''


def start(*arguments, **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TORCHELASTIC")}
    environment = {**kept, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen([sys.executable, "-c", *arguments], env=environment, stdout=subprocess.PIPE, text=True)


def test_a_second_training_is_refused_until_the_first_one_s_process_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(run_dir, "ENDING_SECONDS", 0.3)
    first = start(HOLD, str(tmp_path))
    assert first.stdout.readline() == "locked\n"
    with pytest.raises(UserError) as error:
        RunDir(str(tmp_path)).lock()
    assert str(error.value).startswith("run.dir: ")
    assert f"process {first.pid} on" in str(error.value)
    assert str(tmp_path) in str(error.value)
    # As an orphan that ends while the next training waits for it.
    monkeypatch.setattr(run_dir, "ENDING_SECONDS", 60.0)
    first.send_signal(signal.SIGKILL)
    RunDir(str(tmp_path)).lock()
    first.communicate()


def test_a_rank_that_outlives_the_one_that_took_the_lock_keeps_it(tmp_path):
    first = take(str(tmp_path))
    with pytest.raises(BlockingIOError):
        take(str(tmp_path), shared=True)
    share(first)
    other = take(str(tmp_path), shared=True)
    os.close(first)
    with pytest.raises(BlockingIOError):
        take(str(tmp_path))
    os.close(other)
    os.close(take(str(tmp_path)))


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=r"run/lock.*link"):
        RunDir(f"{tmp_path}/run").lock()
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("by", ["torchrun", "hand"])
def test_a_rank_ends_with_its_launcher_but_goes_on_without_the_shell_it_was_started_from(by):
    launcher = start(LAUNCH, **({"TORCHELASTIC_RUN_ID": "1"} if by == "torchrun" else {}))
    pid = int(launcher.stdout.readline())
    rank = os.pidfd_open(pid)
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate()
    try:
        if by == "torchrun":
            # Readable once the process has ended.
            assert select.select([rank], [], [], 60)[0]
        else:
            time.sleep(1.0)
            assert not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    finally:
        if by == "hand":
            os.kill(pid, signal.SIGKILL)
        os.close(rank)
