"""What the commands do before they join the other ranks."""

import logging
import os
import re

import pytest
import torch

from dmoe.data.dataset.manifest import Split, load_manifest, save_manifest
from dmoe.errors import UserError
from dmoe.storage.lock import take
from dmoe.testing.small_data import make_data_set
from dmoe.train import command, evaluate_run, memory, session
from dmoe.train.run import run_dir


class Joined(Exception):
    """The command came as far as the process group."""


@pytest.fixture
def data(tmp_path):
    make_data_set(tmp_path / "data", {"train": 40, "validation": 20, "test": 20})
    (tmp_path / "config.yaml").write_text(f"data: {{path: {tmp_path}/data}}\nrun: {{dir: {tmp_path}/run}}\n")
    return tmp_path / "data"


def with_positives(data, split, share):
    """Gives a split of the manifest another number of positives: of each shard, 0 or all of its rows."""
    manifest = load_manifest(str(data))
    shards = tuple(one.model_copy(update={"positives": int(one.rows * share)}) for one in manifest.splits[split].shards)
    changed = Split(rows=manifest.splits[split].rows, positives=sum(one.positives for one in shards), shards=shards)
    manifest = manifest.model_copy(update={"splits": manifest.splits | {split: changed}})
    save_manifest(str(data), manifest)
    return manifest


@pytest.mark.parametrize(("share", "label"), [(0, "negative"), (1, "positive")])
def test_a_train_split_of_one_label_is_refused_before_anything_is_built(data, share, label):
    with_positives(data, "train", share)
    with pytest.raises(UserError) as error:
        command.train(str(data.parent / "config.yaml"), [], resume=False)
    assert "data/manifest.json: split 'train'" in str(error.value)
    assert label in str(error.value)


def test_splits_without_an_auc_are_told_before_the_first_step(data):
    import torch

    from dmoe.config.config import Config
    from dmoe.train.output.describe import notices

    config = Config.model_validate({"train": {"batch_size": 1}})
    assert list(notices(config, load_manifest(str(data)), 1, torch.device("cpu"))) == []
    with_positives(data, "test", 1)
    said = list(notices(config, with_positives(data, "validation", 0), 1, torch.device("cpu")))
    assert [line.partition(":")[0] for line in said] == ["split 'validation'", "split 'test'"]
    assert re.search("20 .*negative", said[0])
    assert re.search("20 .*positive", said[1])


def test_a_library_function_leaves_the_loggers_of_its_importer_alone(data, monkeypatch):
    def join(*_):
        raise Joined

    for program in (command, evaluate_run):
        monkeypatch.setattr(program, "join_group", join)
    root = logging.getLogger()
    before = root.level, list(root.filters), logging.getLogger("torchrec").level
    root.setLevel(logging.DEBUG)
    try:
        with pytest.raises(Joined):
            command.train(str(data.parent / "config.yaml"), [], resume=False)
        (data.parent / "manifest.json").write_text((data / "manifest.json").read_text())
        with pytest.raises(Joined):
            evaluate_run.evaluate_run(str(data.parent), None, None, "evaluation.json")
        assert (root.level, list(root.filters), logging.getLogger("torchrec").level) == (logging.DEBUG, *before[1:])
    finally:
        root.setLevel(before[0])


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_in_a_run_s_directory_is_refused(data, monkeypatch, resume):
    monkeypatch.setattr(command, "join_group", lambda *_: torch.device("cpu"))
    monkeypatch.setattr(run_dir, "ENDING_SECONDS", 0.0)
    held = take(f"{data.parent}/run")
    with pytest.raises(UserError, match=r"run\.dir: .*/run"):
        command.train(str(data.parent / "config.yaml"), [], resume)
    os.close(held)
    assert os.listdir(data.parent / "run") == ["lock"]


def test_a_training_that_cannot_fit_is_refused_before_it_is_planned(data, monkeypatch):
    monkeypatch.setattr(command, "join_group", lambda *_: torch.device("cpu"))
    monkeypatch.setattr(memory, "memory_limit", lambda: 1e6)
    monkeypatch.setattr(session, "open_session", None)
    with pytest.raises(UserError, match=r"^memory: .* 1 MB.*train\.batch_size"):
        command.train(str(data.parent / "config.yaml"), ["train.batch_size=1000000"], resume=False)
    assert os.listdir(data.parent / "run") == ["lock"]
