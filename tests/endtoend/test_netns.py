"""Training over two hosts with a network between them, one of them cut off in mid-run: told on both, then gone on with.

The hosts are network namespaces of this machine; each runs the very command that torchx would send to it. About two minutes.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from torchx.specs import macros, materialize_appdef

from dmoe.checkpoint import inspect as look
from dmoe.checkpoint import of_run
from dmoe.launch import components
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import BASE
from tests.endtoend.hosts import Hosts, running, why_not
from tests.endtoend.needs import or_skip

ROOT = Path(__file__).parents[2]
STEPS, TIMEOUT = 120, 30
ROUNDING = 1e-4
"""DistributedDataParallel groups the gradients of a process's first step otherwise than those of the rest, and a ring of more than two
ranks adds in an order that hangs on the place in a group. On two ranks, or without that regrouping, a resumed run is equal bit for bit."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), or_skip("TESTS OF SEVERAL HOSTS", why_not())]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with running(2) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hosts")
    make_data_set(made / "data", rows={"train": 64 * STEPS, "validation": 300, "test": 300})
    training = {"batch_size": 64, "log_every": 5, "checkpoint": {"every_steps": 10}}
    config = {**BASE, "train": training, "run": {"timeout_seconds": TIMEOUT}, "sharding": {"types": ["table_row_wise"]}}
    (made / "small.yaml").write_text(yaml.safe_dump(config))
    return made


class Launch:
    """A run of two nodes of two ranks, started on every host; its output is kept by host in `folder`."""

    def __init__(self, hosts: Hosts, folder: Path, run: str, attempt: int) -> None:
        arguments = ["--config", f"{folder}/small.yaml", "--data", f"{folder}/data", "--run", f"{folder}/{run}", "--resume", "True"]
        app = materialize_appdef(components.train, [*arguments, "--j", "2x2", "--interface", "eth0", "--rdzv_timeout", "120"])
        beside = str(Path(sys.executable).parent)
        self.files, self.processes = [], []
        for node, host in enumerate(hosts.names):
            values = macros.Values(img_root="", app_id=f"{run}-{attempt}", replica_id=str(node), rank0_env="FIRST_HOST")
            role = values.apply(app.roles[0])
            path = f"{beside}:{os.environ['PATH']}"
            environment = {**os.environ, **role.env, "PATH": path, "FIRST_HOST": hosts.names[0], "OMP_NUM_THREADS": "1"}
            self.files.append(folder / f"{run}-{attempt}-{host}.txt")
            with open(self.files[-1], "w") as output:
                command = [role.entrypoint, *role.args]
                self.processes.append(hosts.popen(host, command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT))

    def said(self, node: int) -> str:
        return self.files[node].read_text()

    def end(self, seconds: float = 600) -> list[int]:
        """Waits for the nodes' ends; returns their exit codes."""
        until = time.monotonic() + seconds
        return [process.wait(max(until - time.monotonic(), 1)) for process in self.processes]


def until_step(run: Path, step: int) -> None:
    """Waits until a checkpoint of the step, or a later one, is published."""
    until = time.monotonic() + 600
    while not any(int(path.parent.name[5:]) >= step for path in run.glob("checkpoints/step-*/index.json")):
        assert time.monotonic() < until, f"no checkpoint of step {step} in {run}"
        time.sleep(0.05)


def test_a_host_cut_off_in_mid_run_is_told_on_both_and_the_run_goes_on_to_equal_weights(hosts, folder):
    undisturbed = Launch(hosts, folder, "undisturbed", 0)
    assert undisturbed.end() == [0, 0], undisturbed.said(0) + undisturbed.said(1)

    cut = Launch(hosts, folder, "cut", 0)
    until_step(folder / "cut", 20)
    hosts.cut("host-1")
    assert cut.processes[0].wait(600) != 0
    said = cut.said(0)
    (line,) = {line.partition("]:")[2] for line in said.splitlines() if "dmoe.train: " in line}
    assert re.search(rf"no progress for {TIMEOUT} s .*: rank [23] gives no sign of life; .*look at that rank's host.*--resume", line), said
    # Nobody can tell the other host; its ranks, and its torchrun with them, end of themselves. The first that does speaks for both, if
    # torchrun stops the other before it has.
    assert cut.processes[1].wait(600) != 0
    lines = {line.partition("]:")[2] for line in cut.said(1).splitlines() if "]:dmoe.train: " in line}
    assert lines, cut.said(1)
    assert all(
        re.search(r"no progress for .*: rank [0-3] .*host-0, which keeps the ranks' store, has not answered", line) for line in lines
    )

    hosts.join("host-1")
    again = Launch(hosts, folder, "cut", 1)
    assert again.end() == [0, 0], again.said(0) + again.said(1)
    assert "resuming from step" in again.said(0) + again.said(1)
    lines, differ = look.diff(of_run.newest(f"{folder}/undisturbed"), of_run.newest(f"{folder}/cut"), ROUNDING)
    assert not differ, lines
    earlier = sorted((folder / "undisturbed/checkpoints").glob("step-*"))[0]
    assert look.diff(str(earlier), of_run.newest(f"{folder}/undisturbed"), ROUNDING)[1], "steps less would show"

    plan = json.loads((folder / "cut/plan.json").read_text())["tables"]
    held = [{shard["rank"] for shard in row["shards"]} for row in plan.values()]
    assert all(ranks in ({0, 1}, {2, 3}) for ranks in held), "a table's rows stay within a host"
