"""Jobs that torchx submits to a real Slurm cluster of two nodes with two ranks each: trained, preempted, cancelled, a node lost.

However a run went, its figures are those of one undisturbed process. About six minutes; .ci/install_slurm.sh installs what it needs.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import BASE
from tests.endtoend.needs import or_skip
from tests.endtoend.slurm_cluster import NODES, SlurmCluster, running, why_not

ROOT = Path(__file__).parents[2]
STEPS = 150
SAME = ("rows", "auc", "logloss", "ne", "cec", "best_step", "steps", "trained_rows")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), or_skip("SLURM TESTS", why_not())]


class Desk:
    """What a user has in front of them: a folder with a config and data, torchx, and Slurm's own commands."""

    def __init__(self, folder: Path, cluster: SlurmCluster) -> None:
        self.folder, self.cluster = folder, cluster
        beside = str(Path(sys.executable).parent)
        self.environment = {**cluster.environment, "PATH": f"{beside}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def run(self, command: str) -> str:
        done = subprocess.run(shlex.split(command), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def submit(self, run: str, kind: str, further: str = "") -> str:
        """A training on two nodes of two ranks; returns torchx's handle."""
        component = f"{ROOT}/launch/components.py:train --config small.yaml --data data --run {run} --j 2x2 --cpu 2 --memMB 3000"
        handle = self.run(f"torchx run --scheduler slurm {component} --resume True {further} -- --set sharding.types=[{kind}]").split()[-1]
        assert handle.startswith("slurm://torchx/")
        return handle

    def state(self, handle: str) -> str:
        shown = [line.split() for line in self.run(f"torchx status {handle}").splitlines()]
        return next((words[1] for words in shown if words[:1] == ["State:"]), "UNKNOWN")

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 900, pause: float = 1) -> None:
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                ends = "".join(f"\n== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("slurm-*")))
                pytest.fail(f"{what}: not within {seconds:.0f} s\n{self.run('squeue')}\n{self.run('sinfo')}{ends}")
            time.sleep(pause)

    def step(self, run: str) -> int:
        """The last step that the run has told of."""
        path = self.folder / run / "metrics.jsonl"
        steps = [json.loads(line).get("step", 0) for line in path.read_text().splitlines()] if path.exists() else []
        return max(steps, default=0)

    def metrics(self, run: str) -> dict[str, float]:
        return json.loads((self.folder / run / "metrics.json").read_text())

    def log(self, handle: str) -> str:
        """What the ranks said; torchrun passes it on to the step's standard error and output. Rank 0 may be on either node."""
        job = handle.rpartition("/")[2]
        return "".join(path.read_text() for path in self.folder.glob(f"slurm-{job}-train-*"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    make_data_set(folder / "data", rows={"train": 64 * STEPS, "validation": 700, "test": 700})
    training = {"batch_size": 64, "validations_per_epoch": 2, "log_every": 5, "checkpoint": {"every_steps": 15}}
    config = {**BASE, "train": training, "run": {"timeout_seconds": 120}}
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    with running(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield Desk(folder, cluster)


@pytest.fixture(scope="module")
def undisturbed(desk: Desk) -> dict[str, float]:
    """The figures of one process without a scheduler."""
    desk.run("python -m dmoe.train --config small.yaml --set data.path=data --set run.dir=runs/one")
    return desk.metrics("runs/one")


def assert_same(figures: dict[str, float], expected: dict[str, float]) -> None:
    for name in SAME:
        assert figures[name] == pytest.approx(expected[name], rel=1e-4), name


def assert_stopped_and_resumed_at_the_same_step(desk: Desk, run: str) -> None:
    """By the ranks' own logs, which an attempt of its own does not begin anew."""
    said = "".join(path.read_text() for path in desk.folder.glob(f"{run}/logs/node-*/*/attempt_0/*/std*.log"))
    kept = set(re.findall(r"asked to stop \(SIGTERM\): kept a checkpoint of step ([\d,]+)", said))
    resumed = set(re.findall(r"resuming from step ([\d,]+)", said))
    assert len(kept) == 1, said[-3000:]
    assert kept == resumed


def test_a_run_that_gets_sigterm_keeps_its_step_and_goes_on_when_it_is_submitted_again(desk, undisturbed):
    handle = desk.submit("runs/term", "grid_shard")
    desk.wait("first steps", lambda: desk.step("runs/term") >= 10, pause=0.1)
    desk.run(f"scancel --signal=TERM {handle.rpartition('/')[2]}")
    desk.wait("the end", lambda: desk.state(handle) == "FAILED")
    again = desk.submit("runs/term", "grid_shard")
    desk.wait("the end", lambda: desk.state(again) == "SUCCEEDED")
    assert_stopped_and_resumed_at_the_same_step(desk, "runs/term")
    assert_same(desk.metrics("runs/term"), undisturbed)


def test_preprocess_as_a_job_makes_the_bytes_of_the_command(desk):
    desk.run(f"{sys.executable} {ROOT}/tools/synthesize.py criteo --rows 20000 --seed 1 --output log.tsv")
    options = "--min-count 3 --block-kb 256"
    desk.run(f"{sys.executable} {ROOT}/tools/preprocess.py criteo --input log.tsv --output alone {options}")
    (desk.folder / "tools").symlink_to(ROOT / "tools")
    component = f"{ROOT}/launch/components.py:preprocess --input log.tsv --output shared --cpu 2 --memMB 3000"
    handle = desk.run(f"torchx run --scheduler slurm {component} -- {options}").split()[-1]
    desk.wait("the end", lambda: desk.state(handle) == "SUCCEEDED")
    made = {
        name: {str(p.relative_to(desk.folder / name)): p for p in (desk.folder / name).rglob("*.parquet")} for name in ("alone", "shared")
    }
    assert made["alone"].keys() == made["shared"].keys()
    assert made["alone"], "there are shards"
    assert all(path.read_bytes() == made["shared"][name].read_bytes() for name, path in made["alone"].items())
    manifests = [json.loads((desk.folder / name / "manifest.json").read_text()) for name in ("alone", "shared")]
    for manifest in manifests:
        # The command that made it.
        manifest.pop("made_by")
    assert manifests[0] == manifests[1]


def test_two_nodes_train_what_one_process_trains(desk, undisturbed):
    handle = desk.submit("runs/two", "table_row_wise")
    desk.wait("running", lambda: desk.state(handle) == "RUNNING")
    desk.wait("the end", lambda: desk.state(handle) == "SUCCEEDED")
    assert_same(desk.metrics("runs/two"), undisturbed)
    assert desk.metrics("runs/two")["world_size"] == 4

    plan = json.loads((desk.folder / "runs/two/plan.json").read_text())["tables"]
    assert {row["sharding_type"] for row in plan.values()} == {"table_row_wise"}
    held = [{shard["rank"] for shard in row["shards"]} for row in plan.values()]
    assert all(ranks in ({0, 1}, {2, 3}) for ranks in held), "a table's rows stay within a node"
    logs = sorted(str(path.relative_to(desk.folder)) for path in desk.folder.glob("runs/two/logs/node-*/*/attempt_0/*/stderr.log"))
    assert [(path.split("/")[3], path.split("/")[6]) for path in logs] == [(f"node-{n}", str(r)) for n in (0, 1) for r in (0, 1)]
    told = desk.run(f"torchx log {handle}/train")
    assert re.search(r"\[node[01]-0\]:run kept in runs/two", told)
    assert told.count("run kept in") == 1, "one rank speaks for all"
    assert handle in desk.run("torchx list --scheduler slurm")


def test_a_preempted_run_is_requeued_and_goes_on_where_it_was(desk, undisturbed):
    handle = desk.submit("runs/preempted", "grid_shard", "--max_retries 3")
    desk.wait("first steps", lambda: desk.step("runs/preempted") >= 10, pause=0.1)
    urgent = desk.run("sbatch --parsable -p urgent -N 2 --exclusive --wrap 'sleep 1' -o urgent.out").strip()
    desk.wait("the urgent job", lambda: "COMPLETED" in desk.run(f"sacct -n -X -j {urgent} -o State"))
    desk.wait("the end", lambda: desk.state(handle) == "SUCCEEDED")
    assert_stopped_and_resumed_at_the_same_step(desk, "runs/preempted")
    assert_same(desk.metrics("runs/preempted"), undisturbed)
    plan = json.loads((desk.folder / "runs/preempted/plan.json").read_text())["tables"]
    assert {row["sharding_type"] for row in plan.values()} == {"grid_shard"}


def test_a_cancelled_run_keeps_its_last_step_and_is_submitted_again(desk, undisturbed):
    handle = desk.submit("runs/cancelled", "table_row_wise")
    desk.wait("first steps", lambda: desk.step("runs/cancelled") >= 10, pause=0.1)
    desk.run(f"torchx cancel {handle}")
    # Not `torchx status`: torchx 0.7.0 ends with a traceback at sacct's "CANCELLED by 0".
    job = handle.rpartition("/")[2]
    desk.wait("the cancellation", lambda: "CANCELLED" in desk.run(f"sacct -n -X -j {job} -o State"))
    again = desk.submit("runs/cancelled", "table_row_wise")
    desk.wait("the end", lambda: desk.state(again) == "SUCCEEDED")
    assert_stopped_and_resumed_at_the_same_step(desk, "runs/cancelled")
    assert_same(desk.metrics("runs/cancelled"), undisturbed)

    component = f"{ROOT}/launch/components.py:evaluate --run runs/cancelled --j 2x1 --cpu 2 --memMB 3000"
    handle = desk.run(f"torchx run --scheduler slurm {component}").split()[-1]
    desk.wait("the evaluation", lambda: desk.state(handle) == "SUCCEEDED")
    evaluated = json.loads((desk.folder / "runs/cancelled/evaluation.json").read_text())
    assert evaluated["auc"] == pytest.approx(undisturbed["auc"], rel=1e-4)


def test_a_run_outlives_a_node_that_is_killed(desk, undisturbed):
    handle = desk.submit("runs/killed", "table_row_wise", "--max_retries 3")
    desk.wait("a checkpoint", lambda: desk.step("runs/killed") >= 20, pause=0.1)
    desk.cluster.kill_node(NODES[1])
    desk.wait("the loss seen", lambda: desk.state(handle) != "RUNNING")
    desk.cluster.start_node(NODES[1])
    desk.wait("the end", lambda: desk.state(handle) == "SUCCEEDED")
    assert "resuming from step" in desk.log(handle)
    assert_same(desk.metrics("runs/killed"), undisturbed)
