"""Folders of a given run that only look like checkpoints, and files of a checkpoint that are links."""

import shutil
from pathlib import Path

import pytest

from dmoe.checkpoint.contents import Contents
from dmoe.checkpoint.index import step_of, verify_checkpoint
from dmoe.checkpoint.of_run import best_step, newest
from dmoe.errors import UserError
from dmoe.names import whole_number
from dmoe.testing.small_scorer import small_scorer
from dmoe.train.run.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    small_scorer(str(folder), steps=2)
    return folder / "run"


def test_other_names_are_no_checkpoints(run, tmp_path):
    given = shutil.copytree(run, tmp_path / "run")
    sound = given / "checkpoints" / "step-000000002"
    for name in ("step-²", "step-5", "step-0000000000003", "step-९९९९९९९९९", "step-" + "9" * 200):
        shutil.copytree(sound, given / "checkpoints" / name)
    assert best_step(str(given)) == 2
    assert RunDir(str(given)).checkpoints() == [2]
    assert newest(str(given)) == str(sound)
    assert step_of("x/step-000000017/") == 17


@pytest.mark.parametrize("name", ["index.json", "dense.safetensors", "tables-00000-00000.safetensors"])
def test_a_linked_file_of_a_checkpoint_is_refused(run, tmp_path, name):
    folder = shutil.copytree(run / "checkpoints" / "step-000000002", tmp_path / "step-000000002")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    for read in (verify_checkpoint, lambda path: [Contents(path).rows(one, 0, 1) for one in Contents(path).names()]):
        with pytest.raises(UserError, match=rf"{name}: .*link"):
            read(str(folder))


@pytest.mark.parametrize("text", ["²", "", "-1", "1.0", "९", "9" * 5000, " 1"])
def test_what_is_no_whole_number(text):
    assert whole_number(text) is None
