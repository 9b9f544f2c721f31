"""A light multi-embedding on every sharding type, with bags, and begun from a run whose tables were smaller."""

from pathlib import Path

import numpy as np
import pytest

from dmoe.config.config import dump_config
from dmoe.data.dataset.manifest import load_manifest, save_manifest
from dmoe.testing import resume
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import largest_difference, small_config, train_and_tell
from tests.distributed import growing
from tests.unit.data.log.logs import make, make_rows, write_csv

STEPS, BOUND = 12, 2e-4
LIGHT = "model.embedding={sets: light, private_ids: 35, dim: 8}"


@pytest.fixture(scope="module")
def alone(ranks, data_set):
    (result,) = ranks(1).run(train_and_tell, data_set, STEPS, LIGHT, "sharding.types=[table_wise]")
    return result


@pytest.mark.parametrize(
    ("types", "layout"),
    [
        ("grid_shard", "wide"),
        pytest.param("column_wise", "separate", marks=pytest.mark.slow),
        pytest.param("table_column_wise", "wide", marks=pytest.mark.slow),
        pytest.param("table_row_wise", "separate", marks=pytest.mark.slow),
        pytest.param("row_wise", "wide", marks=pytest.mark.slow),
        pytest.param("data_parallel", "wide", marks=pytest.mark.slow),
        pytest.param("table_wise", "separate", marks=pytest.mark.slow),
    ],
)
def test_every_sharding_type(ranks, data_set, alone, types, layout):
    check(ranks(4).run(train_and_tell, data_set, STEPS, LIGHT, f"sharding.types=[{types}]", f"model.embedding.layout={layout}"), alone)


@pytest.mark.parametrize(
    "types", ["grid_shard", *(pytest.param(one, marks=pytest.mark.slow) for one in ("column_wise", "table_row_wise", "data_parallel"))]
)
def test_every_sharding_type_of_hashed_tables(ranks, data_set, types):
    hashed = "model.embedding={sets: hashed, hashed_rows: 20, dim: 8}"
    (expected,) = ranks(1).run(train_and_tell, data_set, STEPS, hashed, "sharding.types=[table_wise]")
    check(ranks(4).run(train_and_tell, data_set, STEPS, hashed, f"sharding.types=[{types}]"), expected)


def test_hashed_rows_that_would_be_other_ids_are_refused(ranks, data_set, tmp_path):
    """C2 had 30 ids and has 90."""
    make_data_set(tmp_path / "grown", cardinalities=(55, 90, 25, 61), seed=5)
    grown = str(tmp_path / "grown")
    for before, now, feature in ((20, 20, ""), (35, 35, "C2"), (20, 25, "C1"), (100, 100, "")):
        run = tmp_path / f"run {before} {now}"
        run.mkdir()
        of_before, of_now = (f"model.embedding={{sets: hashed, hashed_rows: {rows}}}" for rows in (before, now))
        save_manifest(str(run), load_manifest(data_set))
        (run / "config.yaml").write_text(dump_config(small_config(data_set, of_before)))
        ranks(1).run(resume.save, data_set, str(run / "checkpoints" / f"step-{resume.BEFORE:09d}"), of_before)
        (found,) = ranks(1).run(growing.refusal, grown, str(run), of_now)
        assert (f": {feature}: " in found and "hashed_rows" in found) if feature else not found


def test_bags_on_three_ranks(ranks, tmp_path):
    write_csv(tmp_path / "log.csv", make_rows(900))
    log = str(make(tmp_path / "d", tmp_path / "log.csv", rows_per_shard=512))
    light = "model.embedding={sets: light, private_ids: 4, dim: 8}"
    (expected,) = ranks(1).run(train_and_tell, log, STEPS, light, "sharding.types=[table_wise]")
    check(ranks(3).run(train_and_tell, log, STEPS, light, "sharding.types=[row_wise]", "model.embedding.layout=separate"), expected)


def check(results, expected) -> None:
    losses, tables, dense, _ = expected
    assert any(name.endswith("/shared") for name in tables)
    for got_losses, got_tables, got_dense, _ in results:
        assert got_losses == pytest.approx(losses, rel=1e-5)
        assert largest_difference(tables, got_tables) < BOUND
        assert largest_difference(dense, got_dense) < BOUND


def test_begins_from_a_run_of_smaller_tables(ranks, data_set, tmp_path):
    """C2 of 30 ids had 30 of 35 private rows and gets 5 new ones; the rows of the others are all kept."""
    small = (40, 30, 25, 60)
    make_data_set(tmp_path / "grown", cardinalities=(55, 90, 25, 61), seed=5)
    run = tmp_path / "run"
    run.mkdir()
    save_manifest(str(run), load_manifest(data_set))
    (run / "config.yaml").write_text(dump_config(small_config(data_set, LIGHT)))
    folder = str(run / "checkpoints" / f"step-{resume.BEFORE:09d}")
    (before, *_) = ranks(2).run(resume.save, data_set, folder, LIGHT, "sharding.types=[row_wise]")
    grown = str(Path(tmp_path / "grown"))
    _, line, loaded, losses = ranks(2).run(growing.begin_and_go_on, grown, str(run), LIGHT, "sharding.types=[table_wise]")[0]
    fresh = ranks(2).run(growing.fresh, grown, LIGHT, "sharding.types=[table_wise]")[0]
    assert f"{15 + 60 + 0 + 1} new ids in 3 of 4 features" in line
    for name in (name for name in before if name.startswith("C")):
        rows, feature = len(before[name]), int(name[1]) - 1
        assert rows == (small[feature] if "/shared" in name else min(35, small[feature]))
        np.testing.assert_array_equal(loaded[name][:rows], before[name], err_msg=name)
        np.testing.assert_array_equal(loaded[name][rows:], fresh[name][rows:], err_msg=name)
    assert len(loaded["C2/0"]) == 35
    assert np.isfinite(losses).all()
