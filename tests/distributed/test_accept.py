"""`dmoe accept` rehearsed on gloo: whole on 1, 2 and 4 ranks; and each stage fails where its subject is broken, and the others go on."""

import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dmoe.accept.conductor import Stage
from dmoe.accept.finding import FAILED, HELD, SKIPPED, Finding
from dmoe.accept.program import Options, accept
from dmoe.accept.stages import machine, speed, stops
from dmoe.accept.stages import stages as listed
from dmoe.accept.stages.training import host_memory_with
from tests.distributed import planted

pytestmark = pytest.mark.timeout(1800)
ROOT = Path(__file__).parents[2]
STAGES = {stage.name: stage for stage in listed.STAGES}
NEEDS_GPU = {"host memory"}
NEEDS_FULL = {"compile"}
NEEDS_TWO = {"collectives", "invariance"}


def run(
    *names: str, fault: str = "nothing", ranks: int = 2, minutes: float = 30, stages=listed.STAGES, level="quick"
) -> dict[str, Finding]:
    """The findings by stage, with a fault of tests/distributed/planted.py in every rank."""
    options = Options(level, names, minutes, ranks, prepare=f"tests.distributed.planted:{fault}")
    found = accept(options, stages)
    assert found is not None
    return {finding.stage: finding for finding in found[0]}


def stage(name: str, call, seconds: float = 60) -> Stage:
    return Stage(name, "It holds.", "It does not.", call, seconds, torch_alone=True)


def calling(function):
    """A stage's `run` that calls a function on all ranks and takes no answer but 2 for a sum over two."""

    def call(job, notes) -> None:
        notes.hold(job.ranks.run(function) == [2, 2], "not 2")

    return call


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (planted.hang_on_rank_1, "rank 1 of 2 did not answer in time"),
        (planted.die_on_rank_1, "rank 1 of 2 ended with exit code 7"),
        (planted.raise_on_rank_1, "rank 1 of 2 raised ValueError: broken here"),
    ],
    ids=["hangs", "dies", "raises"],
)
def test_a_stage_that_breaks_or_hangs_is_ended_in_time_and_the_rest_goes_on(broken, told):
    seconds = 8 if broken is planted.hang_on_rank_1 else 600
    sound = calling(planted.sound)
    some = [stage("before", sound, 600), stage("broken", calling(broken), seconds), stage("after", sound, 600)]
    # The seconds of a stage are those of a run of 5 minutes.
    found = run(stages=[replace(one, seconds=one.seconds / 6) for one in some], level="dense", minutes=30)
    assert [found[name].verdict for name in ("before", "broken", "after")] == [HELD, FAILED, HELD]
    assert told in found["broken"].reason
    assert found["broken"].meaning == "It does not."
    # Without the time limit, the first would last a day; without the grace, the others ten minutes.
    assert found["broken"].seconds < 300


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_stage_holds_on_gloo(ranks, monkeypatch):
    # How fast a machine is that other tests share says nothing; that a slow one is told, the faults below show.
    monkeypatch.setattr(machine, "CPU_SHARE", 0.0)
    monkeypatch.setattr(speed, "SHARE", 0.0)
    found = run(ranks=ranks, minutes=60)
    skipped = NEEDS_GPU | NEEDS_FULL | (NEEDS_TWO if ranks == 1 else set())
    told = {name: finding.reason for name, finding in found.items() if finding.verdict == FAILED}
    assert not told
    assert {name for name, finding in found.items() if finding.verdict == SKIPPED} == skipped
    assert found.keys() == STAGES.keys()
    assert all(found[name].reason for name in skipped)


@pytest.mark.slow
def test_the_dense_level_loads_neither_torchrec_nor_fbgemm():
    """In a program of its own: ranks are forked from a server, which this one's other tests have load TorchRec."""
    code = "from tests.distributed.test_accept import dense_alone; dense_alone()"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0


def dense_alone() -> None:
    """Exits with a list of what does not hold."""

    def modules(job, notes) -> None:
        notes.hold(not any(job.ranks.run(planted.loaded)), "loaded")

    dense = [one for one in listed.STAGES if one.torch_alone]
    found = run(stages=[*dense, stage("modules", modules)], level="dense", fault="without_torchrec")
    sys.exit(str({name: finding.reason for name, finding in found.items() if finding.verdict != HELD} or "") or None)


PLANTED = [
    ("versions", "other_version", "differ in torch: "),
    ("collectives", "corrupted_exchange", "gloo: all-to-all gave rank 1 wrong numbers"),
    ("collectives", "slow_link", "all-to-all a rank is"),
    ("experts", "wrong_expert", "expert mlp: outputs differ"),
    ("experts", "wrong_gradient", "expert mlp: gradients differ"),
    ("losses", "gradient_of_one_rank", "the default form: gradients differ"),
    ("metrics", "metric_of_one_rank", "AUC, binned is"),
    ("kernels", "wrong_kernel", "table_wise with adagrad: weights differ"),
    ("kernels", "wrong_optimizer", "data_parallel with adagrad: weights differ"),
    ("invariance", "other_initial_weights", "losses differ by"),
    ("precision", "full_precision", "fp16 between ranks: the losses are float32's to the bit"),
    ("plan", "other_plan", "shards are not where the plan has them"),
    ("memory", "leak", "rank 0 took"),
    ("waits", "hidden_wait", "a step waits for the device 1 times at model/losses/objective.py"),
    ("speed", "slow_steps", "share of the limit that is reached is"),
    ("pipeline", "forgetful_load", "resumed on 1 of 2 ranks: largest difference"),
    ("preemption", "deaf_to_signals", "ended with exit code 0"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault", "told"), PLANTED, ids=[fault for _, fault, _ in PLANTED])
def test_a_stage_fails_where_its_subject_is_broken(name, fault, told, monkeypatch):
    # On a busy machine products take longer too, beside which a step's two seconds of sleep count less.
    monkeypatch.setattr(speed, "SHARE", 0.2)
    found = run(name, fault=fault)[name]
    assert (found.verdict, found.meaning) == (FAILED, STAGES[name].failed)
    assert told in found.reason


@pytest.mark.slow
def test_survivors_that_hang_fail_the_stage_of_a_lost_rank():
    # The undisturbed run, which has no fault to meet, has time; the survivors hang until the time of their stage is over.
    some = [stage("before", lambda job, _: stops.undisturbed(job), 600), replace(STAGES["lost rank"], seconds=30)]
    found = run(fault="hanging_survivors", minutes=10, stages=some)["lost rank"]
    assert found.verdict == FAILED
    assert "rank 0 should have ended with exit code 3, but it had not ended in time" in found.reason


@pytest.mark.slow
def test_a_compiler_that_changes_the_numbers_fails_its_stage():
    found = run("compile", fault="wrong_compiler", level="full")["compile"]
    assert (found.verdict, found.meaning) == (FAILED, STAGES["compile"].failed)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "verdict"), [("nothing", HELD), ("stale_reads", FAILED)])
def test_a_checkpoint_of_stale_rows_fails_the_stage_of_host_memory(fault, verdict):
    """Here with the kernel of the device's memory: a CPU has no other."""
    some = [stage("host memory", functools.partial(host_memory_with, kernels=("fused",)))]
    found = run(stages=some, fault=fault)["host memory"]
    assert found.verdict == verdict
    assert ("a checkpoint does not hold the weights" in found.reason) == (verdict == FAILED)


def test_every_stage_has_a_fault_that_it_was_seen_to_find():
    elsewhere = {"lost rank", "compile", "host memory"}
    assert {name for name, *_ in PLANTED} | elsewhere == STAGES.keys()
