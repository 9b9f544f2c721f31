"""Ctrl-C in a program's first seconds: one line and exit code 130, in an import, in a wait inside C++ code, alone and under torchrun."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.endtoend.ranks import ranks_of
from tests.signs_of_life import besides

ROOT = Path(__file__).resolve().parents[2]
SWALLOWS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(10**9):
        pass
except BaseException:
    half_imported = True
"""
# A process-directed signal goes to another thread then, so that the main one does not notice.
STUCK = """
import ctypes, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("stuck", flush=True)
ctypes.CDLL(None).sleep(600)
"""
WAITS_FOR_A_RANK = """
import datetime
import torch.distributed as dist
print("stuck", flush=True)
dist.TCPStore("localhost", 0, 2, True, timeout=datetime.timedelta(seconds=600))
"""
WORKS = """
import sys, time
print("stuck", flush=True)
time.sleep(600)
"""


def start(*command: str, **environment: str) -> subprocess.Popen[str]:
    """A program as a terminal starts it: with a process group of its own, to which Ctrl-C goes."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(program: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what it said; what is left of its group is killed."""
    try:
        said = program.communicate(timeout=300)[1]
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
            program.communicate()
    return program.returncode, said


def run_main(body: str) -> list[str]:
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return ["-c", f"import sys\nfrom dmoe.errors import run_command\ndef main():\n{lines}sys.exit(run_command('tool', main))\n"]


def test_an_import_that_swallows_it_does_not_keep_the_program(tmp_path):
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    code, said = end(start(*run_main("import swallows\nprint('goes on', file=sys.stderr)"), PYTHONPATH=f"{ROOT}:{tmp_path}"))
    assert (code, said) == (130, "tool: interrupted\n")


@pytest.mark.parametrize("body", [STUCK, WAITS_FOR_A_RANK, WORKS], ids=["stuck", "waits for a rank", "works"])
def test_a_main_thread_that_does_not_notice_it_is_ended(body):
    program = start(*run_main(body))
    assert program.stdout.readline() == "stuck\n"
    os.killpg(program.pid, signal.SIGINT)
    assert end(program) == (130, "tool: interrupted\n")


def test_a_rank_whose_launcher_ends_first_was_interrupted_nevertheless():
    """The rank is stuck, and notices Ctrl-C after its launcher has gone."""
    rank = run_main("import os\nfrom dmoe.processes.orphans import end_with\nend_with(os.getppid(), 1, 'it is gone')" + STUCK)
    launcher = f"import signal, subprocess, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nsubprocess.call([sys.executable, *{rank}])"
    program = start("-c", launcher)
    assert program.stdout.readline() == "stuck\n"
    os.killpg(program.pid, signal.SIGINT)
    assert program.communicate(timeout=300)[1] == "tool: interrupted\n"


def test_one_rank_speaks_for_all():
    for rank, said in (("0", "tool: interrupted\n"), ("1", "")):
        program = start(*run_main(WORKS), RANK=rank)
        assert program.stdout.readline() == "stuck\n"
        os.killpg(program.pid, signal.SIGINT)
        assert end(program) == (130, said)


def test_a_job_in_a_shell_s_background_ignores_it_as_it_did(tmp_path):
    body = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('goes on', file=sys.stderr)"
    program = subprocess.Popen(
        [sys.executable, *run_main(body)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (program.communicate(timeout=300)[1], program.returncode) == ("goes on\n", 0)


def comes_to_import_torch(program: subprocess.Popen[str], ranks: int) -> bool:
    """Waits until so many ranks (or, for 0, the program itself) have mapped torch, which is in the middle of their imports. False if one
    of them was so much faster that the program has ended."""
    until = time.monotonic() + 600
    while time.monotonic() < until and program.poll() is None:
        pids = ranks_of(program.pid) if ranks else [program.pid]
        with contextlib.suppress(OSError):
            maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pids]
            if len(pids) == max(ranks, 1) and all("libtorch_cpu" in one for one in maps):
                return True
        time.sleep(0.01)
    end(program)
    return False


@pytest.mark.parametrize("ranks", [0, 2], ids=["alone", "under torchrun"])
def test_training_that_has_just_been_started_ends_in_one_line(tmp_path, ranks):
    train = ["-m", "dmoe.train", "--config", "configs/demo.yaml", "--set", f"data.path={tmp_path}", f"run.dir={tmp_path}/run"]
    launcher = ["-m", "dmoe.torchrun", "--nproc-per-node", "2", "--rdzv-backend", "dmoe", "--rdzv-endpoint", "localhost:0"]
    program = start(*([*launcher, *train] if ranks else train))
    for _ in range(10):
        if comes_to_import_torch(program, ranks):
            break
        program = start(*([*launcher, *train] if ranks else train))
    os.killpg(program.pid, signal.SIGINT)
    code, said = end(program)
    assert code == 130, said
    (line,) = besides(said)
    assert re.fullmatch(r"dmoe\.\w+: interrupted", line)
