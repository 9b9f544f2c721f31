"""Experts on slices of the test rows, against their definitions; slices by counts and by place."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.cli.main import main
from dmoe.config.config import dump_config, parse_config
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading.epoch_order import order_name
from dmoe.data.dataset.vocabulary_files import file_of
from dmoe.errors import UserError
from dmoe.report.expert_slices import experts_document, experts_of_run, measure
from dmoe.report.slices import frequency_groups, place_groups
from tests.unit.report.test_slices import data_set
from tests.unit.test_given_files import FIGURES

ROWS, EXPERTS = 400, 3


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The mixture's logit [N], each expert's [N, M], the gate [N, M] and the label [N]; expert 1 ranks, 0 a little, 2 not at all."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=ROWS) * 2
    label = rng.random(ROWS) < 1 / (1 + np.exp(-truth))
    expert = np.stack([truth + 4 * rng.normal(size=ROWS), truth, rng.normal(size=ROWS)], 1).astype(np.float32)
    gate = rng.dirichlet([1, 4, 1], ROWS).astype(np.float32)
    return (gate * expert).sum(1), expert, gate, label


def test_figures_are_their_definitions():
    logit, expert, gate, label = rows()
    found = measure("all", logit, expert, gate, label)

    def loss(z: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-z.astype(np.float64)))
        return -np.where(label, np.log(p), np.log(1 - p))

    def auc(z: np.ndarray) -> float:
        return float(np.mean((z[label][:, None] > z[~label][None]) + (z[label][:, None] == z[~label][None]) / 2))

    losses = np.stack([loss(expert[:, m]) for m in range(EXPERTS)], 1)
    assert found.ambiguity.mean == pytest.approx(((gate * losses).sum(1) - loss(logit)).mean(), rel=1e-6)
    assert found.ambiguity.low < found.ambiguity.mean < found.ambiguity.high
    likely = np.where(label[:, None], 1 / (1 + np.exp(-expert.astype(np.float64))), 1 / (1 + np.exp(expert.astype(np.float64))))
    credit = gate * likely / (gate * likely).sum(1, keepdims=True)
    for m, one in enumerate(found.experts):
        assert one.auc.mean == pytest.approx(auc(expert[:, m]), rel=1e-12)
        assert one.logloss.mean == pytest.approx((losses[:, m] - loss(logit)).mean(), rel=1e-6)
        assert one.gate == pytest.approx(gate[:, m].mean(), rel=1e-6)
        assert one.responsibility == pytest.approx(credit[:, m].mean(), rel=1e-6)
    assert found.order == [1, 0, 2]
    assert found.lead.mean == pytest.approx(auc(expert[:, 1]) - auc(expert[:, 0]), rel=1e-9)
    assert found.lead.sign == 1


def test_sure_and_wrong_experts_leave_no_figure_undefined():
    logit, expert, gate, label = rows()
    expert[:] = np.where(label, -3000.0, 3000.0)[:, None]
    found = measure("all", logit, expert, gate, label)
    assert sum(one.responsibility for one in found.experts) == pytest.approx(1)
    assert np.isfinite([one.logloss.mean for one in found.experts]).all()


def test_a_slice_of_few_clicks_has_no_auc_but_a_logloss():
    logit, expert, gate, _ = rows()
    found = measure("few", logit[:30], expert[:30], gate[:30], np.arange(30) < 5)
    assert (found.auc, found.lead, found.order) == (None, None, [])
    assert found.experts[0].logloss.low is not None


def run_with(folder, **arrays: np.ndarray):
    """A run that was tested on the six rows of `data_set`, and what it kept of them."""
    one = data_set(folder)
    order = order_name(load_manifest(str(folder)).split("test").shards)
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text(dump_config(parse_config("model: {experts: [mlp, crossnet, cin]}", "c")))
    lists = {name: [0.5] * 3 for name in ("expert_variance", "expert_auc", "expert_left_out_auc", "gate_mass")}
    matrices = {name: np.eye(3).tolist() for name in ("cec_matrix", "cka_matrix")}
    (folder / "run" / "metrics.json").write_text(json.dumps(FIGURES | lists | matrices | {"dead_dims": [0] * 3} | one.metrics))
    (folder / "run" / "metrics.jsonl").write_text("")
    given = {"logit": np.arange(6, dtype=np.float32), "label": np.arange(6) % 3 == 1, **arrays}
    np.savez(folder / "run" / "predictions.npz", **given, order=np.array(order), step=np.array(1))
    return folder / "run"


def test_the_command_tells_and_draws_every_slice(tmp_path, capsys):
    rng = np.random.default_rng(0)
    run = run_with(tmp_path, expert_logit=rng.normal(size=(6, 3)).astype(np.float32), gate=np.full((6, 3), 1 / 3, np.float32))
    main(["report", "experts", str(run), "--slice", "tags", "--slices", "2", "--parts", "2", "--output", str(tmp_path / "page.html")])
    told, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    for name in ("all rows", "tags: id 2", "tags: id 3", "tags: all others", "part 1 of 2", "part 2 of 2", "1 crossnet"):
        assert name in told
        assert name in page
    found = experts_of_run(str(run), ["tags"], 2, [], 2)
    assert [one.rows for one in found.slices] == [6, 3, 3, 1, 3, 3]
    assert experts_document(found).text() in told
    assert experts_document(found).html() == page


@pytest.mark.parametrize(
    "arrays",
    [{}, {"expert_logit": np.zeros((6, 3), np.float32), "gate": np.zeros((6, 2), np.float32)}, {"gate": np.zeros((6, 3), np.float32)}],
    ids=["none", "of other experts", "one alone"],
)
def test_a_run_without_its_experts_predictions_is_refused(tmp_path, arrays):
    run = run_with(tmp_path, **arrays)
    with pytest.raises(UserError, match="experts"):
        experts_of_run(str(run), [], 8, [], 0)


def test_slices_by_how_often_ids_were_seen(tmp_path):
    """Ids 0 and 1 are missing and rare values; ids 2 to 5 were seen 12000, 150, 12 and 3 times. Of a bag the rarest id counts."""
    run = data_set(tmp_path)
    order = order_name(load_manifest(str(tmp_path)).split("test").shards)
    for feature in ("tags", "C"):
        path = tmp_path / file_of("", feature).lstrip("/")
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"token": ["a", "b", "c", "d"], "id": [2, 3, 4, 5], "count": [12000, 150, 12, 3]}), path)
    found = {name: np.flatnonzero(rows_N).tolist() for name, rows_N in frequency_groups(run, "tags", order)}
    assert found == {
        "missing": [1],
        "seen 1 to 9 times": [4],
        "seen 10 to 99 times": [2],
        "seen 100 to 999 times": [0, 5],
        "seen 10,000 to 99,999 times": [3],
    }
    assert [name for name, _ in frequency_groups(run, "C", order)][:2] == ["missing", "rare"]
    (tmp_path / file_of("", "C").lstrip("/")).unlink()
    with pytest.raises(UserError, match="--frequency C"):
        frequency_groups(run, "C", order)


def test_places_part_the_rows():
    found = place_groups(10, 3)
    assert np.sum([rows_N for _, rows_N in found], 0).tolist() == [1] * 10
    assert [rows_N.sum() for _, rows_N in found] == [4, 3, 3]
    assert not place_groups(10, 0)
