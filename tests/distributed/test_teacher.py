"""A student learns of trained models: the teacher's logits are its scorer's, on any number of ranks; the student resumes, and is served
without its teacher."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmoe.checkpoint.index import read_index, write_index
from dmoe.config.config import dump_config
from dmoe.serve.export.export import export
from dmoe.serve.scorer import Scorer
from dmoe.testing import resume
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import largest_difference, small_config, train_and_tell
from dmoe.train.teacher import held_bytes
from tests.distributed import learning
from tests.distributed.test_grown import make_run

ROOT = Path(__file__).resolve().parents[2]
STEPS, BOUND = 6, 2e-4
STUDENT = "model.experts=[{kind: mlp, hidden: [16]}]"
"""One expert on one table set."""
LIGHT = "model.embedding={sets: light, private_ids: 9, dim: 8}"


@pytest.fixture(scope="module")
def teacher(ranks, data_set, tmp_path_factory) -> str:
    """A run of three experts."""
    run = tmp_path_factory.mktemp("teacher")
    make_run(run, data_set)
    ranks(2).run(resume.save, data_set, str(run / "checkpoints" / f"step-{resume.BEFORE:09d}"), "sharding.types=[row_wise]")
    return str(run)


@pytest.fixture(scope="module")
def other(ranks, data_set, tmp_path_factory) -> str:
    """A run of another model, a light multi-embedding."""
    run = tmp_path_factory.mktemp("other")
    make_run(run, data_set)
    (run / "config.yaml").write_text(dump_config(small_config(data_set, LIGHT)))
    ranks(1).run(resume.save, data_set, str(run / "checkpoints" / f"step-{resume.BEFORE:09d}"), LIGHT)
    return str(run)


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("student", [STUDENT, "model.embedding={sets: hashed, hashed_rows: 20, dim: 8}"], ids=["one expert", "hashed"])
def test_a_teachers_logits_are_its_scorers_and_it_stays_as_it_is(ranks, data_set, tmp_path, teacher, other, student, world_size):
    results = ranks(world_size).run(learning.teacher_logits, data_set, student, teacher, other)
    table = pq.read_table(sorted(Path(data_set, "validation").glob("*.parquet"))[0]).slice(0, learning.ROWS)
    for number, run in enumerate((teacher, other)):
        export(run, str(tmp_path / str(number)))
        scorer = Scorer(str(tmp_path / str(number)))
        dense, ids = (np.stack([table[name].to_numpy() for name in names], 1) for names in (("I1", "I2", "I3"), ("C1", "C2", "C3", "C4")))
        found = np.concatenate([logits[number][weights[number] > 0] for logits, weights, _ in results])
        np.testing.assert_allclose(found, scorer.logits(dense, ids), atol=1e-5)
    assert [changed for *_, changed in results] == [0.0] * world_size


def test_a_student_is_the_same_on_any_number_of_ranks(ranks, data_set, teacher, other):
    learns = (STUDENT, f"distill={{teachers: [{other}, {teacher}], weight: 2.0, temperature: 3.0}}", f"train.max_steps={STEPS}")
    (alone,) = ranks(1).run(train_and_tell, data_set, STEPS, *learns)
    untaught = ranks(1).run(train_and_tell, data_set, STEPS, STUDENT)[0]
    assert largest_difference(alone[2], untaught[2]) > 100 * BOUND
    for size, types in ((2, "table_wise"), (3, "row_wise")):
        for losses, tables, dense, _ in ranks(size).run(train_and_tell, data_set, STEPS, *learns, f"sharding.types=[{types}]"):
            assert losses == pytest.approx(alone[0], rel=1e-5)
            assert largest_difference(alone[1], tables) < BOUND
            assert largest_difference(alone[2], dense) < BOUND


def test_a_teachers_tables_count_for_the_memory_that_is_needed(data_set, teacher, other, tmp_path):
    """Three sets of 8 dims; a shared one and three of nine rows a feature."""
    several, light = (40 + 30 + 25 + 60) * 3 * 8 * 4, (40 + 30 + 25 + 60 + 4 * 9 * 3) * 8 * 4
    for teachers, expected in (([teacher], several), ([other], light), ([other, teacher], several), ([tmp_path / "no"], 0), ([], 0)):
        assert held_bytes(small_config(data_set, STUDENT, f"distill.teachers=[{', '.join(map(str, teachers))}]")) == expected


def test_a_student_goes_on_to_the_bit(ranks, data_set, teacher, other, tmp_path):
    total = f"train.max_steps={resume.BEFORE + resume.AFTER}"
    learns = (STUDENT, f"distill.teachers=[{teacher}, {other}, {teacher}]", total)
    (straight,) = ranks(1).run(resume.undisturbed, data_set, *learns)
    ranks(1).run(resume.save, data_set, str(tmp_path / "step"), *learns)
    _, (losses, tables, dense) = ranks(1).run(resume.load_and_go_on, data_set, str(tmp_path / "step"), *learns)[0]
    assert losses == straight[0]
    assert largest_difference(straight[1], tables) == 0
    assert largest_difference(straight[2], dense) == 0


def test_a_wrong_teacher_is_refused_in_one_line(ranks, data_set, teacher, tmp_path):
    make_data_set(tmp_path / "larger", cardinalities=(41, 30, 25, 60))
    make_data_set(tmp_path / "fewer", cardinalities=(40, 30, 25))
    damaged = tmp_path / "damaged"
    shutil.copytree(teacher, damaged)
    (broken,) = damaged.glob("checkpoints/*/dense.safetensors")
    broken.write_bytes(broken.read_bytes()[:-1] + b"\1")
    for data, run, overrides, words in (
        (tmp_path / "larger", teacher, (), "feature C1 "),
        (tmp_path / "fewer", teacher, (), "feature C4 "),
        (data_set, teacher, ("data.features=[C1, C2]",), "feature C3 "),
        (data_set, str(damaged), (), f"{broken}: damaged"),
        (data_set, str(tmp_path / "nowhere"), (), str(tmp_path / "nowhere")),
    ):
        for message in ranks(2).run(learning.refusal, str(data), run, "sharding.types=[row_wise]", *overrides):
            assert message.startswith("distill.teachers: ")
            assert words in message
            assert "\n" not in message


@pytest.mark.slow
def test_dmoe_train_distils_resumes_and_exports_without_the_teacher(data_set, teacher, tmp_path):
    """The command, killed after a checkpoint as it were; the teacher that changed meanwhile is refused, and no scorer needs it."""
    run, again, moved = tmp_path / "run", tmp_path / "again", tmp_path / "teacher"
    shutil.copytree(teacher, moved)
    config = small_config(
        data_set,
        STUDENT,
        f"distill.teachers=[{moved}]",
        "train={batch_size: 64, max_steps: 12, validations_per_epoch: 1, guard: {enabled: false}, checkpoint: {every_steps: 5, keep: 9}}",
    )
    (tmp_path / "config.yaml").write_text(dump_config(config))

    def train(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dmoe.train", "--config", str(tmp_path / "config.yaml"), "--set", f"run.dir={folder}", "--resume"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    first = train(run)
    assert first.returncode == 0, first.stderr
    shutil.copytree(run, again)
    for step in (10, 12):
        shutil.rmtree(again / "checkpoints" / f"step-{step:09d}")
    (index,) = moved.glob("checkpoints/*/index.json")
    kept = index.read_bytes()
    write_index(str(index.parent), replace(read_index(str(index.parent)), progress={"step": resume.BEFORE, "steps_before": 1}))
    refused = train(again)
    assert refused.returncode == 2
    assert f"distill.teachers: {moved}" in refused.stderr
    index.write_bytes(kept)
    second = train(again)
    assert second.returncode == 0, second.stderr
    assert "resuming from step 5" in second.stderr
    files = sorted((run / "checkpoints/step-000000012").glob("*.safetensors"))
    assert len(files) > 1
    for path in files:
        assert path.read_bytes() == (again / path.relative_to(run)).read_bytes(), path
    shutil.rmtree(moved)
    export(str(run), str(tmp_path / "scorer"))
    assert len(Scorer(str(tmp_path / "scorer")).about.experts) == 1
