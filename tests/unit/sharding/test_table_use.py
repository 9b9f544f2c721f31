"""What the data's counts say of a table's ids, against drawn batches and a cache that is simulated; and what TorchRec makes of it."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

import dmoe
from dmoe.cli.main import main
from dmoe.config.config import load_config, setting
from dmoe.data.dataset.describe import kept_counts
from dmoe.data.dataset.manifest import CategoricalFeature, load_manifest
from dmoe.model.build import make_blueprint
from dmoe.sharding.plan.job_plan import kept_plan
from dmoe.sharding.plan.plan_file import check_plan
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.cost.cost_model import predict
from dmoe.sharding.planner.cost.lookup import LOAD_FACTOR, Lookup, Use, lookup_of
from dmoe.sharding.planner.cost.table_use import groups_of, measure
from tests.odd_names import make_odd
from tests.unit.sharding.small_plans import plan_of, table

ROWS, LOOKUPS = 2000, 300


def feature(missing=0.1, rare=0.05, rows=ROWS):
    return CategoricalFeature(name="C1", kind="token", cardinality=rows, missing_share=missing, rare_share=rare)


def skewed(power):
    return np.maximum(1e6 / np.arange(1, ROWS - 1) ** power, 1).astype(np.int64)


def batches(counts, one, number, lookups=LOOKUPS):
    """Batches of ids drawn one by one: 0 missing, 1 rare, then those of the counts."""
    draw = np.random.default_rng(3)
    own = 1 - one.missing_share - one.rare_share
    p = np.concatenate([[one.missing_share, one.rare_share], own * counts / counts.sum()])
    return [draw.choice(len(p), size=lookups, p=p / p.sum()) for _ in range(number)]


@pytest.mark.parametrize("power", [0.0, 0.8, 1.3])
def test_different_ids_of_a_batch_and_hot_rows_are_those_that_draws_have(power):
    counts, one = skewed(power), feature()
    use = measure(groups_of(counts, one), ROWS, LOOKUPS)
    drawn = batches(counts, one, 300)
    found = [len(np.unique(batch)) for batch in drawn]
    assert use.unique_ids == pytest.approx(np.mean(found), abs=5 * np.std(found) / len(found) ** 0.5)
    p = np.sort(np.concatenate([[0.1, 0.05], 0.85 * counts / counts.sum()]))[::-1]
    assert use.hot_rows == np.searchsorted(np.cumsum(p), 0.5 - 1e-9) + 1


@pytest.mark.parametrize("power", [0.0, 0.8, 1.3])
def test_a_cache_misses_what_a_simulated_one_misses(power):
    counts, one = skewed(power), feature()
    use = measure(groups_of(counts, one), ROWS, LOOKUPS)
    cache, size, missed, asked = OrderedDict(), int(LOAD_FACTOR * ROWS), 0, 0
    for step, batch in enumerate(batches(counts, one, 600)):
        ids = np.random.default_rng(step).permutation(np.unique(batch)).tolist()
        if step >= 100:
            asked += len(ids)
            missed += sum(one not in cache for one in ids)
        for row in ids:
            cache[row] = None
            cache.move_to_end(row)
        while len(cache) > size:
            cache.popitem(last=False)
    assert use.miss_rate == pytest.approx(missed / asked, abs=0.015)


def test_a_cache_that_holds_all_ids_that_occur_misses_none():
    counts = np.zeros(ROWS - 2, np.int64)
    counts[:100] = 7
    assert measure(groups_of(counts, feature()), ROWS, LOOKUPS).miss_rate == 0.0
    # One id alone, as where all values are missing.
    assert measure(groups_of(counts, feature(1.0, 0.0)), ROWS, LOOKUPS) == Use(LOOKUPS, 1.0, 0.0, 1)


@pytest.mark.parametrize(
    ("kind", "shards", "divisor"),
    [("table_wise", [(0, 0, 4000, 64, 0)], 1), ("row_wise", [(0, 0, 2000, 64, 0), (2000, 0, 2000, 64, 1)], 2)],
)
def test_torchrec_adds_the_time_to_fetch_what_the_cache_misses(kind, shards, divisor):
    cluster = parse_cluster("1x2:h100")
    row = table(4000, 64, kind, *shards, kernel="fused_uvm_caching")
    use = {"lookups": 128.0, "unique_ids": 100.0, "miss_rate": 0.25, "hot_rows": 3}
    plain, measured = (predict({"T": one}, "sgd", cluster) for one in (row, row | {"use": use}))
    fetch = 100 * 0.25 * 64 * 4 / (cluster.device.host_link / 1000) / divisor
    np.testing.assert_allclose((measured.time - plain.time)[0, 0], fetch, rtol=1e-5)
    np.testing.assert_array_equal(measured.memory, plain.memory)
    np.testing.assert_allclose(sum(measured.parts.values()), measured.time.sum(0))
    # Other kernels have no cache.
    fused = table(4000, 64, kind, *shards)
    one, other = (predict({"T": some}, "sgd", cluster).time for some in (fused, fused | {"use": use}))
    np.testing.assert_array_equal(one, other)


def test_tables_of_equal_size_have_the_time_of_their_own_use():
    cluster = parse_cluster("1x2:h100")
    row = table(4000, 64, "table_wise", (0, 0, 4000, 64, 0), kernel="fused_uvm_caching")
    rows = {
        f"T{number}": row | {"use": {"lookups": 128.0, "unique_ids": 100.0, "miss_rate": rate, "hot_rows": 3}}
        for number, rate in enumerate((0.1, 0.4, 0.1))
    }
    together = predict(rows, "sgd", cluster).time
    alone = [predict({name: one}, "sgd", cluster).time[0] for name, one in rows.items()]
    np.testing.assert_array_equal(together, alone)
    assert together[1, 0] > together[0, 0] == together[2, 0]


def test_a_plan_without_measured_use_is_read_as_before():
    row = table(10, 8, "table_wise", (0, 0, 10, 8, 0))
    assert lookup_of(row) == Lookup((1.0,))
    check_plan(plan_of({"T": row | {"use": None}}), "plan")


@pytest.mark.slow
def test_make_measures_the_data_set_and_why_tells_it(tmp_path, capsys):
    make_odd(tmp_path)
    data, output = str(tmp_path / "d"), str(tmp_path / "plan.json")
    (tmp_path / "c.yaml").write_text("{model: {embedding: {dim: 8}, expert_dim: 8, experts: [mlp]}, train: {batch_size: 64}}")
    main(["plan", "make", "--config", str(tmp_path / "c.yaml"), "--data", data, "--cluster", "1x2:h100", "--output", output])
    plan = json.loads((tmp_path / "plan.json").read_text())
    manifest = load_manifest(data)
    kept = {one.name: one for one in manifest.categorical}
    counted = {one.name: counts for one, counts in zip(manifest.categorical, kept_counts(data, manifest), strict=True)}
    measured = {row["feature"]: row["use"] for row in plan["tables"].values() if "use" in row}
    assert set(measured) == {name for name, counts in counted.items() if counts is not None and counts.sum()}
    assert measured
    for name, use in measured.items():
        assert use["lookups"] == pytest.approx(64 * kept[name].mean_ids)
        found = [len(np.unique(batch)) for batch in batches(counted[name], kept[name], 200, round(use["lookups"]))]
        assert use["unique_ids"] == pytest.approx(np.mean(found), rel=0.05)
    capsys.readouterr()
    main(["plan", "show", output, "--why"])
    text = capsys.readouterr().out
    # A sweep's tables are used as the plan's, and dmoe.Planner's too, where features have the data set's names.
    main(["plan", "sweep", "--config", str(tmp_path / "c.yaml"), "--data", data, "--clusters", "1x2:h100"])
    swept = capsys.readouterr().out
    assert f"({len({row['feature'] for row in plan['tables'].values() if 'use' in row})} feature" in swept
    bags = [
        EmbeddingBagConfig(name=f"t{number}", num_embeddings=one.cardinality, embedding_dim=8, feature_names=[one.name])
        for number, one in enumerate(manifest.categorical)
    ]
    module = EmbeddingBagCollection(bags, device=torch.device("meta"))
    rows = dmoe.Planner("1x2:h100", batch_size=64, data=data).plan(module).kept["tables"]
    assert {row["feature"]: row["use"] for row in rows.values() if "use" in row} == measured
    assert {row["feature"]: row["lookup"]["ids"] for row in rows.values()} == {name: [one.mean_ids] for name, one in kept.items()}
    # A run that plans for itself keeps the same.
    config = load_config(str(tmp_path / "c.yaml"), [setting("data.path", data)])
    tables = list(make_blueprint(config, manifest).tables)
    rows = kept_plan(torch.nn.Linear(1, 1), tables, config, torch.device("cpu"), manifest)["tables"]
    assert {row["feature"]: row["use"] for row in rows.values() if "use" in row} == measured
    assert text.count("different ids") == len([row for row in plan["tables"].values() if "use" in row])
    assert max(map(len, text.splitlines())) <= 100
