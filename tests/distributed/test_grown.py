"""A run begins from a checkpoint whose tables were smaller: old rows and their states to the bit, new rows as a fresh model's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dmoe.checkpoint import index
from dmoe.config.config import dump_config
from dmoe.data.dataset.identity import TokenIdentity
from dmoe.data.dataset.manifest import load_manifest, save_manifest
from dmoe.testing import resume
from dmoe.testing.small_data import make_data_set, write_tokens
from dmoe.testing.small_run import small_config
from tests.distributed import growing

OLD, GROWN = (40, 30, 25, 60), (55, 30, 200, 61)
WAYS = {
    "1 rank": (1, "sharding.types=[table_wise]"),
    "table-wise": (2, "sharding.types=[table_wise]"),
    "row-wise": (2, "sharding.types=[row_wise]"),
    "data-parallel, separate": (2, "sharding.types=[data_parallel]", "model.embedding.layout=separate"),
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("grown")
    make_data_set(folder, cardinalities=GROWN, seed=5)
    return str(folder)


@pytest.fixture(scope="module")
def saved(ranks, data_set, tmp_path_factory):
    """A run's folder with a checkpoint of the small tables, and what is in it."""
    run = tmp_path_factory.mktemp("run")
    make_run(run, data_set)
    folder = str(run / "checkpoints" / f"step-{resume.BEFORE:09d}")
    return folder, ranks(2).run(resume.save, data_set, folder, "sharding.types=[row_wise]")[0]


def make_run(folder: Path, data: str) -> None:
    """What a run's directory holds beside its checkpoints."""
    save_manifest(str(folder), load_manifest(data))
    (folder / "config.yaml").write_text(dump_config(small_config(data)))


@pytest.mark.parametrize("way", WAYS)
def test_old_rows_are_kept_to_the_bit_and_new_rows_are_a_fresh_models(ranks, grown, saved, way):
    folder, before = saved
    size, *given = WAYS[way]
    # The run's folder stands for its checkpoint.
    steps, line, loaded, losses = ranks(size).run(growing.begin_and_go_on, grown, str(Path(folder).parents[1]), *given)[0]
    fresh = ranks(size).run(growing.fresh, grown, *given)[0]
    assert steps == resume.BEFORE
    assert line.endswith("191 new ids in 3 of 4 features")
    assert loaded.keys() == before.keys()
    for name, was in before.items():
        np.testing.assert_array_equal(loaded[name][: len(was)] if was.ndim else loaded[name], was, err_msg=name)
    for name in (name for name in before if name.startswith("C")):
        rows = len(before[name])
        assert len(loaded[name]) == GROWN[int(name[1]) - 1]
        np.testing.assert_array_equal(loaded[name][rows:], fresh[name][rows:], err_msg=name)
        if ":" not in name and rows < len(loaded[name]):
            assert np.abs(loaded[name][rows:]).min(1).max() > 0
            assert not np.array_equal(loaded[name][:rows], fresh[name][:rows])
    assert np.isfinite(losses).all()


def test_steps_count_on_from_the_runs_before(ranks, data_set, grown, tmp_path):
    make_run(tmp_path, data_set)
    folder = str(tmp_path / "checkpoints" / "step")
    ranks(1).run(resume.save, data_set, folder)
    kept = index.read_index(folder)
    index.write_index(folder, index.Index(kept.tables, kept.pieces, kept.files, kept.progress | {"steps_before": 100}))
    assert ranks(1).run(growing.begin_and_go_on, grown, folder)[0][0] == 100 + resume.BEFORE


def test_shrunk_tables_other_dims_features_and_optimizers_are_refused_in_one_line(ranks, data_set, grown, saved, tmp_path):
    folder, _ = saved
    make_data_set(tmp_path / "shrunk", cardinalities=(40, 30, 24, 60))
    make_data_set(tmp_path / "other", cardinalities=(40, 30, 25))
    manifest = json.loads((Path(grown) / "manifest.json").read_text())
    manifest["categorical"][0], manifest["categorical"][1] = manifest["categorical"][1], manifest["categorical"][0]
    make_data_set(tmp_path / "renumbered", cardinalities=GROWN)
    renumbered = load_manifest(str(tmp_path / "renumbered"))
    digest = write_tokens(tmp_path / "renumbered", "C2", np.arange(30)[2:][::-1])
    second = renumbered.categorical[1].model_copy(update={"identity": TokenIdentity(source="text", tokens=digest)})
    categorical = (renumbered.categorical[0], second, *renumbered.categorical[2:])
    save_manifest(str(tmp_path / "renumbered"), renumbered.model_copy(update={"categorical": categorical}))
    (tmp_path / "swapped").mkdir()
    (tmp_path / "swapped" / "manifest.json").write_text(json.dumps(manifest))
    for data, override, words in (
        (tmp_path / "shrunk", "train.seed=0", "feature C3 has 24 ids, but the model was trained with 25"),
        (tmp_path / "other", "train.seed=0", "feature C4 is not there"),
        (tmp_path / "swapped", "train.seed=0", "feature C2 stands where the model was trained with categorical feature C1"),
        (tmp_path / "renumbered", "train.seed=0", "feature C2 has other tokens"),
        (grown, "model.embedding.dim=12", "table 'C1/0' is 40 x 8 there and 55 x 12 in this model"),
        (grown, "optimizer.tables.kind=rowwise_adagrad", "no whole state 'sum'"),
    ):
        for message in ranks(2).run(growing.refusal, str(data), folder, override, "sharding.types=[row_wise]"):
            assert message.startswith("train.init_from: ")
            assert words in message
            assert "\n" not in message
    (message,) = ranks(1).run(growing.refusal, grown, str(tmp_path / "nowhere"))
    assert "neither a checkpoint" in message
    # Without its run, nothing tells which tokens the ids of a checkpoint stand for.
    shutil.copytree(folder, tmp_path / "alone" / "checkpoints" / "step")
    for message in ranks(2).run(growing.refusal, grown, str(tmp_path / "alone" / "checkpoints" / "step"), "sharding.types=[row_wise]"):
        assert message.startswith(f"train.init_from: {tmp_path / 'alone'}: no config.yaml")
