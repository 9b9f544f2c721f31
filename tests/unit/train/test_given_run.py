"""Run directories from anyone: no link inside of one is followed, whatever is written, removed or read."""

import os
import re
from pathlib import Path

import pytest

from dmoe.checkpoint.index import Index, write_index
from dmoe.checkpoint.of_run import best_step, newest, prune
from dmoe.checkpoint.save import prepare
from dmoe.config.config import Config
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError
from dmoe.report.runs import load_run
from dmoe.serve.export.export import export
from dmoe.testing.small_data import make_data_set
from dmoe.train.output.trace import Trace
from dmoe.train.run.run_dir import RunDir


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "home" / "documents").mkdir(parents=True)
    for name in ("bashrc", "documents/a", "documents/index.json"):
        (tmp_path / "home" / name).write_text("precious")
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def _untouched(victim: Path):
    yield
    found = {str(path.relative_to(victim)): path.read_text() for path in victim.rglob("*") if path.is_file()}
    assert found == dict.fromkeys(("bashrc", "documents/a", "documents/index.json"), "precious")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with one checkpoint, of no tables."""
    made = RunDir(str(tmp_path / "run"))
    made.create(Config(), make_data_set(tmp_path / "d", {"train": 20}), {})
    publish(made, 1)
    return made


def publish(run: RunDir, step: int) -> None:
    os.makedirs(run.checkpoint(step))
    write_index(run.checkpoint(step), Index({}, (), {}, {"step": step}))


WRITES = {
    "metrics.jsonl": lambda run: run.log("train", {"step": 1}),
    "resumes.jsonl": lambda run: run.resumed(1, [], Config(), {}),
    "metrics.json": lambda run: run.finish({}),
    "evaluation.json": lambda run: run.finish({}, "evaluation.json"),
    "config.yaml": lambda run: run.create(Config(), load_manifest(run.path), {}),
    "plan.json": lambda run: run.create(Config(), load_manifest(run.path), {}),
    "environment.json": lambda run: run.create(Config(), load_manifest(run.path), {}),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_file_that_is_a_link_is_refused(run, victim, name):
    Path(run.path, name).unlink(missing_ok=True)
    Path(run.path, name).symlink_to(victim / "bashrc")
    with pytest.raises(UserError, match=rf"/{name}: .*link"):
        WRITES[name](run)


@pytest.mark.parametrize("name", ["metrics.json", "evaluation.json"])
def test_a_link_where_a_temporary_file_might_be_is_not_followed(run, victim, name):
    Path(run.path, f"{name}.tmp").symlink_to(victim / "bashrc")
    run.finish({"auc": 0.5}, name)
    assert "0.5" in Path(run.path, name).read_text()


READS = {
    "checkpoints": RunDir.checkpoints,
    "newest_sound": RunDir.newest_sound,
    "set_aside_after": lambda run: run.set_aside_after(1),
    "prune": lambda run: prune(run.path, 1, None),
    "prepare": lambda run: prepare(run.checkpoint(34)),
    "best_step": lambda run: best_step(run.path),
    "export": lambda run: export(run.path, f"{run.path}-scorer", step=34),
    "inspect": lambda run: newest(run.path),
}


@pytest.mark.parametrize("use", READS)
@pytest.mark.parametrize("link", ["checkpoints/step-000000034", "checkpoints"])
def test_a_checkpoint_that_is_a_link_is_refused(run, victim, link, use):
    if link == "checkpoints":
        Path(run.path, link).rename(Path(run.path, "elsewhere"))
    Path(run.path, link).symlink_to(victim / "documents")
    with pytest.raises(UserError, match=rf"/{link}: .*link"):
        READS[use](run)


def test_a_link_among_a_checkpoint_s_files_is_removed_and_not_what_it_points_to(run, victim):
    folder = Path(run.checkpoint(2))
    folder.mkdir()
    (folder / "tables-00000-00000.safetensors").symlink_to(victim / "bashrc")
    (folder / "index.json").symlink_to(victim / "documents" / "index.json")
    prepare(str(folder))
    assert list(folder.iterdir()) == []


def test_reports_and_traces_refuse_links_too(run, victim):
    run.finish({})
    Path(run.path, "trace").symlink_to(victim / "documents")
    with pytest.raises(UserError, match=r"/trace: .*link"):
        Trace((1, 1), run.path, 0)
    Path(run.path, "metrics.json").unlink()
    Path(run.path, "metrics.json").symlink_to(victim / "bashrc")
    with pytest.raises(UserError, match=r"/metrics\.json: .*link"):
        load_run(run.path)


def test_a_run_directory_that_is_a_link_itself_is_a_user_s_own_choice(run, tmp_path):
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    linked = RunDir(str(tmp_path / "latest"))
    linked.log("train", {"step": 1})
    linked.finish({"auc": 0.5})
    publish(linked, 2)
    prune(linked.path, 1, None)
    assert run.checkpoints() == [2]
    assert Path(run.path, "metrics.json").is_file()


def test_an_evaluation_stays_in_the_run(run):
    for name in ("../evaluation.json", "/tmp/evaluation.json", "a/../../b.json"):
        with pytest.raises(UserError, match=f"^{re.escape(run.path)}: '"):
            run.finish({}, name)


def test_a_data_set_is_not_replaced_by_a_run(tmp_path: Path):
    manifest = make_data_set(tmp_path / "d", {"train": 20})
    before = (tmp_path / "d" / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="holds a data set"):
        RunDir(str(tmp_path / "d")).create(Config(), manifest, {})
    assert [(tmp_path / "d" / "manifest.json").read_bytes(), (tmp_path / "d" / "config.yaml").exists()] == [before, False]


def test_a_run_that_was_killed_before_it_began_is_begun_again(run: RunDir):
    os.remove(run.file("config.yaml"))
    run.create(Config(), load_manifest(run.path), {})
    assert run.holds_a_run()
