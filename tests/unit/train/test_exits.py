"""Exit codes, and one line a cause."""

import errno
import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from dmoe.checkpoint.progress import Progress, progress_from
from dmoe.config.sections import GuardConfig
from dmoe.errors import UserError
from dmoe.train.elastic import exit_codes as exits
from dmoe.train.elastic.exit_codes import PREEMPTED, Preempted, is_connection, run_rank
from dmoe.train.guard import Guard, Stopped

LONG = 3000


def end(error):
    def main():
        raise error

    return run_rank("dmoe.train", main)


def test_codes_and_lines(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert run_rank("dmoe.train", lambda: None) == 0
    assert end(UserError("configs/x.yaml: no such key")) == 2
    assert json.loads((tmp_path / "error.json").read_text())["message"]["message"] == "configs/x.yaml: no such key"
    assert end(Preempted("asked to stop")) == PREEMPTED == 143
    assert end(OSError(errno.ENOSPC, "No space left on device", "/run/metrics.jsonl")) == 2
    assert capsys.readouterr().err.splitlines() == [
        "dmoe.train: configs/x.yaml: no such key",
        "dmoe.train: asked to stop",
        "dmoe.train: no space left on device: /run/metrics.jsonl",
    ]
    with pytest.raises(ZeroDivisionError):
        end(ZeroDivisionError())


GLOO = "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/"
LOST = [
    RuntimeError(f"{GLOO}pair.cc:537] Read error [127.0.0.1]:48257: Connection reset by peer."),
    RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation to complete"),
    RuntimeError(f"Gloo connectFullMesh failed with {GLOO}pair.cc:150] timed out connecting"),
    RuntimeError("Application timeout caused pair closure"),
    dist.DistNetworkError("The client socket has timed out after 60000ms while trying to connect to (host, 29500)."),
    dist.DistBackendError("NCCL communicator was aborted on rank 1."),
    dist.DistStoreError("wait timeout after 5000ms, keys: /a"),
]
OURS = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    RuntimeError("unknown table 'socket'"),
    RuntimeError("table 'timeout_seconds' did not change in the first steps (1 of 9 tables)"),
    RuntimeError("run.timeout_seconds: nccl and gloo differ"),
    RuntimeError("DataLoader timed out: a broken pipe"),
]


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_lost_peer_is_no_bug_of_ours(capsys, error):
    assert is_connection(error)
    assert end(error) == 3
    assert "lost another rank" in capsys.readouterr().err


@pytest.mark.parametrize("error", OURS, ids=str)
def test_a_fault_that_mentions_connections_is_no_lost_peer(error):
    with pytest.raises(RuntimeError) as raised:
        end(error)
    assert raised.value is error


def test_a_rank_that_lost_the_others_and_their_store_says_so_and_ends(capsys, monkeypatch):
    answer, codes = threading.Event(), []
    store = SimpleNamespace(check=lambda _: not answer.wait())
    for name, value in {
        "group_store": lambda: store,
        "_ranks": lambda: 4,
        "_rank": lambda: 2,
        "GRACE_SECONDS": 0,
        "ANSWER_SECONDS": 0.1,
    }.items():
        monkeypatch.setattr(exits, name, value)
    monkeypatch.setattr(exits.os, "_exit", codes.append)
    assert end(RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 75000ms for send operation to complete")) == 3
    answer.set()
    assert codes == [3]
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"dmoe.train: rank 2: lost another rank while this one worked ({GLOO}")


def test_a_loss_that_is_not_finite_names_step_and_rank():
    with pytest.raises(Stopped, match=r"step 17 .*rank 3"):
        Guard(GuardConfig(), 0.2).check_loss(20, float("nan"), 10, (17, 3))
    with pytest.raises(Stopped, match=r"step 20.* 10 steps"):
        Guard(GuardConfig(), 0.2).check_loss(20, float("inf"), 10)
    Guard(GuardConfig(enabled=False), 0.2).check_loss(20, float("nan"), 10)


def test_progress_is_checked_field_by_field():
    sound = {
        "step": 3,
        "schedule": {"plateau": 1.0, "waited": 0, "best": None},
        "best_auc": 0.7,
        "window": {"since": 0, "steps": 3, "sums": [1.0, 0.5, 0.0, 64.0]},
    }
    assert progress_from(sound, "x") == Progress(**sound)
    for wrong, words in {
        "step": "x: progress.step",
        "row": "x: progress.row",
        "best_step": "x: progress.best_step",
        "unknown": "x: progress.unknown",
        "due": "x: progress.due",
    }.items():
        with pytest.raises(UserError) as error:
            progress_from({**sound, wrong: -1}, "x")
        assert str(error.value).startswith(words)
    with pytest.raises(UserError, match=r"^x: "):
        progress_from({"schedule": sound["schedule"]}, "x")


def test_a_tracker_that_hangs_does_not_hold_up_the_end_of_the_process():
    """Nor do hooks of its library that would wait for it."""
    program = f"""
import atexit, threading, time
from dmoe.train.elastic.exit_codes import TRACKER_THREAD, run_rank
atexit.register(time.sleep, {LONG})
threading.Thread(target=time.sleep, args=({LONG},), name=TRACKER_THREAD + "x", daemon=True).start()
raise SystemExit(run_rank("dmoe.train", lambda: 0))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=LONG / 10, check=False).returncode == 0
