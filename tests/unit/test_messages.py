"""The wording of the messages that users meet most. All other tests look at the kind, file, line and field of a message only."""

import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dmoe.cli.main import main
from dmoe.config.sections import GuardConfig, TableOptimizerConfig
from dmoe.data.dataset.compatibility import check_compatible, inputs_of
from dmoe.data.dataset.files import verify
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError
from dmoe.testing.small_data import make_data_set
from dmoe.train.elastic.watchdog import Sign, explain
from dmoe.train.guard import Guard
from dmoe.train.optimizer.optimizers import attach_table_optimizer

SCHEMA = "label: clicked\ncategorical: [site]\n"
LOG = "clicked,site\n" + "".join(f"{row % 2},s{row % 7}\n" for row in range(60))
PREPROCESS = "preprocess log --input log.csv --output e --schema"

COMMANDS = {
    f"{PREPROCESS} wrong.yaml": "log: wrong.yaml: gruop: unknown key, did you mean 'group'?",
    f"{PREPROCESS} criteoo": "log: --schema criteoo: no such file, and no shipped schema of that name, did you mean 'criteo'?",
    f"{PREPROCESS} other.yaml": "log: log.csv:1: no column 'sight', which other.yaml reads (sight), did you mean 'site'?",
    f"{PREPROCESS} schema.yaml --input bad.csv": "log: bad.csv:3: clicked is 'yes', expected 0 or 1; name the value that means 1 in the"
    " schema, label: {column: ..., positive: ...} (5 bad lines of 60; stops above --max-bad-share 0.001); bad lines are kept in e/rejects",
    f"{PREPROCESS} schema.yaml --input two.tar": "log: two.tar: the archive holds several files (log.csv, bad.csv, ...), expected one;"
    " unpack it and name one, or pipe one in: tar -xOf FILE MEMBER | ... --input -",
    f"{PREPROCESS} schema.yaml --input gone.csv": "log: --input gone.csv: no such file",
    f"{PREPROCESS} schema.yaml --output s3://b/e": "log: --output s3://b/e: remote; name a local folder for the work in progress"
    " with --work",
    f"{PREPROCESS} schema.yaml --output d": "log: --output d: holds another data set; name another folder, or replace it with --overwrite",
    f"{PREPROCESS} schema.yaml --scoring": "log: --scoring needs the ids that the model was trained with: --vocabulary D, the training data"
    " set",
    f"{PREPROCESS} schema.yaml --split 0.8,0.1": "log: --split is '0.8,0.1', expected three shares for train, validation and test that"
    " add up to 1, such as 0.8,0.1,0.1",
    "schema log.csv --label gone": "--label: no column 'gone' in log.csv, expected one of clicked, site",
    "describe e": "data.path: no manifest.json in 'e'; make a data set with dmoe preprocess",
    "train --config config.yaml": "config.yaml: model.expert: unknown key, did you mean 'experts'?",
    "train --config demo --set data.path=d": "run.dir: name the directory for the run, such as --set run.dir=runs/first",
    "evaluate --run r": "--run r: no run there (no config.yaml)",
    "checkpoint verify d": "d: neither a checkpoint (no index.json) nor a run with one (no checkpoints/step-*/index.json)",
}
"""Words of a command -> what follows the command's name in its one line on stderr."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With logs, schemas, a config and the data set d."""
    made = tmp_path_factory.mktemp("messages")
    texts = {"schema.yaml": SCHEMA, "wrong.yaml": SCHEMA + "gruop: site\n", "other.yaml": SCHEMA.replace("site", "sight")}
    texts |= {"log.csv": LOG, "bad.csv": LOG.replace("1,s1", "yes,s1"), "config.yaml": "data: {path: d}\nmodel: {expert: [mlp]}\n"}
    for name, text in texts.items():
        (made / name).write_text(text)
    with tarfile.open(made / "two.tar", "w") as archive:
        for name in ("log.csv", "bad.csv"):
            archive.add(made / name, name)
    make_data_set(made / "d")
    return made


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_says(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str):
    monkeypatch.chdir(folder)
    assert main(words.split()) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"dmoe {words.split()[0]}{' ' if words.startswith('preprocess') else ': '}{COMMANDS[words]}"


def test_a_run_says(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    manifest = make_data_set(tmp_path / "d")
    other = inputs_of(make_data_set(tmp_path / "o", cardinalities=(40, 30, 25, 61)))
    shard = manifest.splits["train"].shards[0].path
    (tmp_path / "d" / shard).write_bytes((tmp_path / "d" / shard).read_bytes()[:-1] + b"?")
    guard = Guard(GuardConfig(after_steps=5), 0.25)
    adam = TableOptimizerConfig(kind="adam")
    remedy = "prepare the data with --vocabulary of the data set that the model was trained on"
    off = "train.guard.enabled=false switches this check off"
    said: dict[str, Callable[[], object]] = {
        f"d/manifest.json: feature C4 has 60 ids, but the model was trained with 61; {remedy}": (
            lambda: check_compatible(other, inputs_of(load_manifest("d")), "d")
        ),
        f"d/{shard}: its bytes are not those that were written (sha256 differs); copy it again or make the data set again": (
            lambda: verify("d", manifest, 1)
        ),
        "manifest.json: no split 'tset', did you mean 'test'?": lambda: manifest.split("tset"),
        "optimizer.tables.kind: FBGEMM's CPU kernels have no adam; use adagrad, rowwise_adagrad or sgd, or train on a GPU": (
            lambda: attach_table_optimizer(torch.nn.Module(), [], adam, torch.device("cpu"))
        ),
        "stopped at step 20: the loss is not finite; a number overflowed at step 17 on rank 3: C1 is too large": (
            lambda: guard.check_loss(20, math.nan, 10, (17, 3), lambda: "C1 is too large")
        ),
        "stopped at step 20: the mean loss is 5.0000; to always predict the base rate of 0.2500 would give 0.5623: try a lower learning"
        f" rate or a longer warm-up; {off}": lambda: guard.check_loss(20, 5.0, 10),
        f"stopped at step 20: the validation AUC is 0.5000, not above chance: C1 is shuffled; {off}": (
            lambda: guard.check_auc(20, 0.5, lambda: "C1 is shuffled")
        ),
    }
    for message, mistake in said.items():
        with pytest.raises(UserError) as error:
            mistake()
        assert str(error.value) == message


def test_the_watchdog_says():
    before = {0: Sign(8, "is in a training step", 7, 1.0), 1: Sign(8, "waits for its next batch", 6, 1.0)}
    now = {0: Sign(9, "is in a training step", 7, 61.0), 1: Sign(9, "waits for its next batch", 6, 61.0)}
    assert explain(before, now, 2, 60) == (
        "no progress for 60 s (run.timeout_seconds): rank 1 waits for its next batch for 61 s, step 6; the others wait: each is in a"
        " training step (step 7); look at that rank's host, then start again with --resume"
    )
