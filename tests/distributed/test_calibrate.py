"""What a run holds is what its plan says, to the byte; what it sends, within the stated bound, whatever the sharding type."""

import json

import pytest
import yaml

from dmoe.errors import UserError
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.cost.calibrate import SENT_BOUND, compare, sent_by_kind
from dmoe.sharding.planner.cost.calibrate_words import as_data, calibration_document, cluster_text
from dmoe.testing.small_run import open_small, small_config
from dmoe.train.rehearsal.measure import measure

TYPES = ("table_wise", "row_wise", "column_wise", "data_parallel")


def measured(data, *overrides):
    session = open_small(small_config(data, *overrides))
    return {"plan": session.plan, "rank": measure(session, 2, 0)}


def run(pool, data, *overrides):
    told = pool.run(measured, data, *overrides)
    return {
        "format": "dmoe-measured",
        "version": 1,
        "device": "cpu",
        "steps": 2,
        "plan": told[0]["plan"],
        "ranks": [one["rank"] for one in told],
    }


@pytest.mark.parametrize("kind", TYPES)
def test_bytes_held_are_exact_and_bytes_sent_within_the_bound(ranks, data_set, kind):
    found = compare(run(ranks(2), data_set, f"sharding.types=[{kind}]"), "test")
    assert found.misplaced == ()
    for rank in found.ranks:
        assert rank.weights[0] == rank.weights[1] > 0
        assert rank.state[0] == rank.state[1] == rank.weights[1]
        # Gradients of the dense part are all-reduced under every plan.
        said, seen = rank.sent["all_reduce"]
        assert seen == pytest.approx(said, rel=1e-9)
    assert found.worst_sent <= SENT_BOUND
    by_kind = found.ranks[0].sent
    assert all(seen == 0 for name, (said, seen) in by_kind.items() if said == 0)
    assert by_kind["reduce_scatter"][1] == by_kind["reduce_scatter"][0] == by_kind["all_gather"][1]
    assert (by_kind["reduce_scatter"][1] > 0) == (kind == "row_wise")
    # What the tables alone send: without the dense part's gradients, which would hide an error of theirs.
    tables = [sum(pair[side] for name, pair in by_kind.items() if name != "all_reduce") for side in (0, 1)]
    assert tables[1] == pytest.approx(tables[0], rel=SENT_BOUND)


@pytest.mark.parametrize(("kind", "world_size"), [("table_wise", 2), ("row_wise", 2), ("table_row_wise", 4)])
def test_embeddings_sent_in_fp16_are_predicted_as_half_the_bytes(ranks, data_set, kind, world_size):
    told = run(ranks(world_size), data_set, f"sharding.types=[{kind}]", "sharding.comm_precision=fp16")
    found = compare(told, "test")
    floats = [name for name in found.ranks[0].sent if name != "all_reduce"]
    for rank in found.ranks:
        # Without the dense part's gradients, which would hide an error of the tables'.
        said, seen = (sum(rank.sent[name][side] for name in floats) for side in (0, 1))
        assert seen == pytest.approx(said, rel=SENT_BOUND)
    told["plan"]["comm_precision"] = "fp32"
    assert compare(told, "test").worst_sent > 5 * SENT_BOUND


def test_node_aware_types_on_two_nodes(ranks, data_set):
    types = "sharding.types=[table_row_wise]"
    found = compare(run(ranks(4), data_set, types, "optimizer.tables.kind=rowwise_adagrad"), "test")
    assert found.misplaced == ()
    assert all(rank.state[0] == rank.state[1] for rank in found.ranks)
    assert sum(rank.state[1] for rank in found.ranks) * 8 == sum(rank.weights[1] for rank in found.ranks)
    assert found.worst_sent <= SENT_BOUND


def test_corrected_constants_predict_what_was_measured(ranks, data_set, tmp_path):
    told = run(ranks(2), data_set, "sharding.types=[table_wise]")
    found = compare(told, "test")
    after = as_data(found)["after"]
    slowest = [max(getattr(rank, what)[1] for rank in found.ranks) for what in ("lookup", "exchange")]
    assert [after["lookup_ms"], after["exchange_ms"]] == pytest.approx(slowest, rel=0.01)
    path = tmp_path / "mine.yaml"
    path.write_text(cluster_text(found))
    device = parse_cluster(f"1x2:{path}").device
    assert device.node_link == pytest.approx(found.cluster.device.node_link, rel=1e-5)
    assert "gloo" in path.read_text()
    assert yaml.safe_load(path.read_text())["name"] == "cpu-measured"
    assert max(len(line) for line in calibration_document(found).text().splitlines()) <= 100
    json.dumps(as_data(found))

    # A shard that lies elsewhere, or state of another size, is found.
    shard = told["ranks"][0]["shards"][0]
    shard["state"] += 4
    assert len(compare(told, "test").misplaced) == 2
    assert "DIFFER" in calibration_document(compare(told, "test")).text()
    # Bytes sent that no longer match are, too.
    told["ranks"][1]["sent"]["all_to_all"] *= 1.1
    assert compare(told, "test").worst_sent > SENT_BOUND


def test_kinds_add_up_to_the_prediction(ranks, data_set):
    told = ranks(4).run(planned, data_set)[0]
    figures = figures_of(told, "test")
    kinds = sent_by_kind(told["tables"], figures.prediction, figures.cluster, figures.comm_precision)
    assert sum(kinds.values()).tolist() == pytest.approx(figures.prediction.sent.sum(0).tolist())
    assert min(values.min() for values in kinds.values()) >= 0


def planned(data):
    return open_small(small_config(data, "sharding.types=[row_wise, table_row_wise, table_wise, grid_shard]")).plan


def test_a_file_that_is_no_measurement_is_refused():
    with pytest.raises(UserError, match=r"x\.json: .*measurement"):
        compare({"format": "dmoe-plan"}, "x.json")
