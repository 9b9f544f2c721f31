"""A checkpoint belongs to the model: saved under any plan, layout and number of ranks, it loads under any other, bit for bit.

The whole matrix: `python tools/bench/invariance.py --resume`.
"""

import itertools
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from dmoe.checkpoint import inspect as look
from dmoe.checkpoint import of_run
from dmoe.checkpoint.index import INDEX, read_index, verify_checkpoint
from dmoe.errors import UserError
from dmoe.testing import resume
from dmoe.testing.plans import overrides
from dmoe.testing.small_run import largest_difference
from tests.distributed import writing

BOUND = 2e-4
WAYS = {
    "1 rank": (1, "sharding.types=[table_wise]"),
    "data-parallel, separate": (2, "sharding.types=[data_parallel]", "model.embedding.layout=separate"),
    "row-wise": (2, "sharding.types=[row_wise]"),
    "columns, separate": (2, "sharding.types=[column_wise]", "model.embedding.layout=separate"),
    "columns inside embeddings": (2, 'sharding.tables={"*": {types: [column_wise], min_partition: 4}}'),
    "mixed": (2, *overrides("mixed", "wide")),
    "grid on 2 x 2": (4, "sharding.types=[grid_shard]"),
}


@pytest.fixture(scope="module")
def straight(ranks, data_set):
    """What a run that was never stopped tells."""
    (told,) = ranks(1).run(resume.undisturbed, data_set, "sharding.types=[table_wise]")
    return told


@pytest.fixture(scope="module")
def saved(ranks, data_set, tmp_path_factory):
    """A checkpoint of every way, with what was saved; each made once."""
    made = {}

    def get(way):
        if way not in made:
            folder = str(tmp_path_factory.mktemp("saved") / "step")
            size, *given = WAYS[way]
            made[way] = folder, ranks(size).run(resume.save, data_set, folder, *given)[0]
        return made[way]

    return get


def _pairs():
    """Every pair. Quick are those that begin or end on one rank, and each way to itself."""
    for way, to in itertools.product(WAYS, WAYS):
        quick = way == to or "1 rank" in (way, to)
        yield pytest.param(way, to, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("way", "to"), list(_pairs()))
def test_any_checkpoint_resumes_anywhere(ranks, data_set, saved, straight, way, to):
    folder, before = saved(way)
    size, *given = WAYS[to]
    # The first into a fresh model of other weights, the next ones into what the one before left.
    loaded, (losses, tables, dense) = ranks(size).run(resume.load_again_and_go_on, data_set, folder, *given)[0]
    assert loaded.keys() == before.keys()
    for name in before:
        np.testing.assert_array_equal(loaded[name], before[name], err_msg=name)
    assert losses == pytest.approx(straight[0], rel=1e-5)
    assert largest_difference(straight[1], tables) < BOUND
    assert largest_difference(straight[2], dense) < BOUND


@pytest.mark.parametrize("kind", ["sgd", "rowwise_adagrad"])
def test_other_optimizers_resume_too(ranks, data_set, tmp_path, kind):
    common = (f"optimizer.tables.kind={kind}", "model.embedding.dim=10")
    (straight,) = ranks(1).run(resume.undisturbed, data_set, *common)
    ranks(2).run(resume.save, data_set, str(tmp_path / "step"), *common, "sharding.types=[data_parallel]")
    _, told = ranks(2).run(resume.load_and_go_on, data_set, str(tmp_path / "step"), *common, "sharding.types=[row_wise]")[0]
    assert told[0] == pytest.approx(straight[0], rel=1e-5)
    assert largest_difference(straight[1], told[1]) < BOUND


def test_another_optimizer_or_model_is_refused_by_name(ranks, data_set, saved):
    folder, _ = saved("row-wise")
    for override, words in {
        "optimizer.tables.kind=rowwise_adagrad": "no whole state 'sum'",
        "model.embedding.dim=12": "table 'C1/0' is 40 x 8 there and 40 x 12",
        "model.expert_dim=12": "parameter '",
        "optimizer.dense.kind=adagrad": "has the states exp_avg, exp_avg_sq, step, ",
    }.items():
        (message,) = ranks(1).run(writing.refusal, data_set, folder, override)
        assert words in message, message


@pytest.mark.parametrize("row", [10**17, 3000])
def test_a_position_behind_the_end_of_the_data_is_refused(ranks, data_set, tmp_path, row):
    (message,) = ranks(1).run(writing.refused_position, data_set, str(tmp_path), row)
    assert f"progress.row is {row:,}" in message


def test_exported_tables_equal_the_model_s(ranks, data_set, saved, tmp_path):
    import safetensors.numpy

    folder, before = saved("grid on 2 x 2")
    look.export(folder, str(tmp_path / "all.safetensors"), per_table=False, states=True)
    exported = safetensors.numpy.load_file(tmp_path / "all.safetensors")
    assert exported.keys() == before.keys()
    for name in before:
        np.testing.assert_array_equal(exported[name], before[name], err_msg=name)
    look.export(folder, str(tmp_path / "each"), per_table=True, states=False)
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "each" / "C1-0.safetensors")["C1/0"], before["C1/0"])
    other, _ = saved("row-wise")
    lines, differ = look.diff(folder, other, 1e-3)
    assert not differ, lines
    assert look.diff(folder, other, 0.0)[1]


def test_a_thread_writes_while_training_goes_on(ranks, data_set, tmp_path):
    """What it writes is the moment of the call, on all ranks, though the weights have moved before it wrote a byte."""
    folder = str(tmp_path / "run")
    for moment, written, later in ranks(2).run(writing.save_in_background, data_set, folder):
        for name in moment:
            np.testing.assert_array_equal(moment[name], written[name], err_msg=name)
        assert any(not np.array_equal(moment[name], later[name]) for name in moment)
    verify_checkpoint(f"{folder}/checkpoints/step-{resume.BEFORE:09d}")


def test_a_write_that_fails_is_told_on_every_rank_and_leaves_the_last_checkpoint(ranks, data_set, tmp_path):
    folder = str(tmp_path / "run")
    messages = ranks(2).run(writing.fail_in_background, data_set, folder)
    assert len(set(messages)) == 1
    assert "rank 1: cannot write the checkpoint" in messages[0]
    assert "no space left" in messages[0]
    verify_checkpoint(of_run.newest(folder))
    assert read_index(of_run.newest(folder)).progress["step"] == 1


def test_a_model_with_nan_is_not_kept(ranks, data_set, tmp_path):
    (message,) = set(ranks(2).run(writing.save_nan, data_set, str(tmp_path / "run")))
    assert "is not finite" in message
    assert not list(tmp_path.rglob(INDEX))


def test_a_copy_larger_than_the_limit_is_written_at_once(ranks, data_set, tmp_path):
    assert ranks(2).run(writing.threads_with_limit, data_set, str(tmp_path / "a"), 16.0) == [1, 1]
    assert ranks(2).run(writing.threads_with_limit, data_set, str(tmp_path / "b"), 1e-6) == [0, 0]


def test_the_newest_sound_checkpoint_is_taken(ranks, data_set, tmp_path):
    """Truncated, flipped, without a file, with half an index: each is refused by name, and the one before it taken."""
    ranks(2).run(writing.save_many, data_set, str(tmp_path), 5)
    folders = [tmp_path / "checkpoints" / f"step-{step:09d}" for step in range(1, 6)]
    tables = "tables-00001-00000.safetensors"
    (folders[4] / INDEX).write_bytes((folders[4] / INDEX).read_bytes()[:-100])
    (folders[3] / tables).write_bytes((folders[3] / tables).read_bytes()[:-1])
    flipped = bytearray((folders[2] / tables).read_bytes())
    flipped[-3] ^= 1
    (folders[2] / tables).write_bytes(flipped)
    (folders[1] / tables).unlink()
    for step, refused in ranks(2).run(writing.newest, str(tmp_path)):
        assert step == 1
        words = [
            (folders[4], "not a checkpoint's index"),
            (folders[3], "bytes, the index says"),
            (folders[2], "checksum"),
            (folders[1], "missing"),
        ]
        assert [(str(folder) in reason, word in reason) for reason, (folder, word) in zip(refused, words, strict=True)] == [
            (True, True)
        ] * 4
    (folders[0] / "dense.safetensors").write_bytes(b"")
    for message in ranks(2).run(writing.newest, str(tmp_path)):
        assert message.startswith("no sound checkpoint in")


def test_the_best_checkpoint_is_restored_and_the_newest_sound_one_where_it_is_damaged(ranks, data_set, tmp_path):
    ranks(2).run(writing.save_many, data_set, str(tmp_path), 3)
    best = ranks(2).run(writing.restored, data_set, str(tmp_path))
    (tmp_path / "checkpoints/step-000000002/tables-00001-00000.safetensors").unlink()
    newest = ranks(2).run(writing.restored, data_set, str(tmp_path))
    assert [step for step, _ in (*best, *newest)] == [2, 2, 3, 3]
    assert all(largest_difference(a, b) > 0 for (_, a), (_, b) in zip(best, newest, strict=True))


def test_the_policy_keeps_the_last_ones_and_the_best(ranks, data_set, tmp_path):
    ranks(2).run(writing.save_many, data_set, str(tmp_path), 5, 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [f"step-{step:09d}" for step in (2, 4, 5)]


def test_an_index_that_lies_is_refused(saved, tmp_path):
    """Checksums guard against accidents; a file that someone made must not pass either."""
    folder, _ = saved("row-wise")
    sound = json.loads((Path(folder) / INDEX).read_text())
    from dmoe.checkpoint.index import _checksum

    def refused(change) -> str:
        lying = json.loads(json.dumps(sound))
        change(lying)
        lying["checksum"] = _checksum(lying)
        (tmp_path / INDEX).write_text(json.dumps(lying))
        with pytest.raises(UserError) as error:
            read_index(str(tmp_path))
        return str(error.value)

    assert "file" in refused(lambda index: index["files"].update({"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}))
    assert "not whole" in refused(lambda index: index["pieces"].pop(0))
    assert "lies outside" in refused(lambda index: index["pieces"][0].__setitem__(2, 1 << 30))
    assert "not a whole number" in refused(lambda index: index["tables"].update({"C1/0": [True, 8]}))
    assert "version" in refused(lambda index: index.update(version=2))


def test_no_thread_is_left_behind(ranks, data_set, tmp_path):
    assert threading.active_count() < 20
    assert ranks(2).run(writing.threads_after, data_set, str(tmp_path)) == [[], []]
