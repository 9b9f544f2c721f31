"""Light and hashed multi-embeddings against their definitions, S[x] + 1[x < q] P_m[x] and S[h_m(x)], and their bytes, told before training.

Shapes: B rows, F features, K dims.
"""

import numpy as np
import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

import dmoe
from dmoe.config.config import parse_config
from dmoe.data.dataset.manifest import CategoricalFeature
from dmoe.errors import UserError
from dmoe.model.budget.cost import cost_of
from dmoe.model.build import make_blueprint
from dmoe.model.dmoe import Feature, manifest_of
from dmoe.model.embedding.embedding import MultiEmbedding
from dmoe.model.embedding.own_hash import hashed_rows
from dmoe.model.embedding.private_ids import HashedIds, PrivateIds
from dmoe.model.embedding.tables import make_tables

SIZES, BOUND = {"C1": 5, "C2": 70, "tags": 9, "sums": 9}, 6
BAGS = {
    "C1": [[0], [4], [2]],
    "C2": [[6], [5], [69]],
    "tags": [[8, 1, 7, 1], [], [6, 8]],
    "sums": [[8, 1, 7, 1], [], [5]],
}
FEATURES = [
    CategoricalFeature(
        name=name,
        kind="token",
        cardinality=size,
        missing_share=0.0,
        rare_share=0.0,
        pooling={"tags": "mean", "sums": "sum"}.get(name, "none"),
    )
    for name, size in SIZES.items()
]


def ids_of(bags: dict[str, list[list[int]]]) -> KeyedJaggedTensor:
    values = [value for rows in bags.values() for row in rows for value in row]
    lengths = [len(row) for rows in bags.values() for row in rows]
    return KeyedJaggedTensor(list(bags), torch.tensor(values), lengths=torch.tensor(lengths, dtype=torch.int32), stride=3)


@pytest.mark.parametrize("layout", ["wide", "separate"])
@pytest.mark.parametrize("dim", [4, 6])
@pytest.mark.parametrize("sets", [1, 3])
def test_an_embedding_is_the_shared_row_and_a_frequent_ids_own(layout, dim, sets):
    tables = make_tables(FEATURES, [dim] * sets, layout, BOUND)
    model = MultiEmbedding(tables)
    rng, logical = np.random.default_rng(0), {}
    for table in tables:
        weight = model.ebc.embedding_bags[table.module].weight
        with torch.no_grad():
            weight.fill_(float("nan"))
            for section in table.sections:
                values = rng.normal(size=(table.rows, section.dim)).astype(np.float32)
                logical[table.logical_name(section)] = values
                weight[:, section.offset : section.offset + section.dim] = torch.from_numpy(values)
    found = model(PrivateIds(list(SIZES), [min(size, BOUND) for size in SIZES.values()])(ids_of(BAGS)))
    assert len(found) == sets
    for number, x_BFK in enumerate(found):
        for field, (name, rows) in enumerate(BAGS.items()):
            assert logical[f"{name}/{number}"].shape == (min(SIZES[name], BOUND), dim)
            for row, bag in enumerate(rows):
                embedded = [logical[f"{name}/shared"][i] + (logical[f"{name}/{number}"][i] if i < BOUND else 0) for i in bag]
                expected = np.sum(embedded, 0) if bag else np.zeros(dim)
                if name == "tags":
                    expected = expected / max(len(bag), 1)
                np.testing.assert_allclose(x_BFK[row, field].detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def splitmix(x: int) -> int:
    """In Python's integers, cut to 64 bits."""
    x = x * 0x9E3779B97F4A7C15 % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_every_expert_reads_one_table_through_its_own_hash():
    dim, sets, most = 6, 3, 8
    tables = make_tables(FEATURES, [dim] * sets, "wide", hashed_rows=most)
    assert [table.rows for table in tables] == [5, 8, 8, 8]
    model, rng, logical = MultiEmbedding(tables), np.random.default_rng(0), {}
    for table in tables:
        values = rng.normal(size=(table.rows, dim)).astype(np.float32)
        weight = model.ebc.embedding_bags[table.module].weight
        with torch.no_grad():
            weight.fill_(float("nan"))
            weight[:, :dim] = torch.from_numpy(values)
        logical[table.feature] = values
    found = model(HashedIds(list(SIZES), list(SIZES.values()), [table.rows for table in tables], sets)(ids_of(BAGS)))
    apart = 0
    for expert, x_BFK in enumerate(found):
        for field, (name, bags) in enumerate(BAGS.items()):
            for row, bag in enumerate(bags):
                read = [i if SIZES[name] <= most else (splitmix(i * 64 + expert + 1) >> 1) % most for i in bag]
                apart += read != bag
                expected = logical[name][read].sum(0) / (max(len(bag), 1) if name == "tags" else 1)
                np.testing.assert_allclose(x_BFK[row, field].detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert apart > 10


def test_two_ids_that_one_expert_confuses_are_apart_for_another():
    ids = torch.arange(20_000)
    first, second = (hashed_rows(ids, expert, 10_000) for expert in (0, 1))
    assert torch.bincount(first, minlength=10_000).max() < 15
    together = (first[:10_000] == first[10_000:]) & (second[:10_000] == second[10_000:])
    assert together.sum() <= 1


def test_ids_that_were_made_already_stay_as_they_are():
    private = PrivateIds(list(SIZES), [2, 2, 2, 2])
    once = private(ids_of(BAGS))
    assert private(once) is once
    hashed = HashedIds(list(SIZES), list(SIZES.values()), [5, 8, 8, 8], 2)
    once = hashed(ids_of(BAGS))
    assert hashed(once) is once


def test_no_two_tables_have_one_name():
    odd = [FEATURES[0].model_copy(update={"name": name}) for name in ("C1", "C1__shared", "C1__0", "C1__private", "private C1")]
    for layout in ("wide", "separate"):
        tables = make_tables(odd, [4, 4], layout, 3)
        assert len({table.name for table in tables}) == len(tables) == len({table.module for table in tables})
        assert len({table.logical_name(s) for table in tables for s in table.sections}) == 5 * 3


def test_bytes_are_told_before_training():
    manifest = manifest_of({"C1": 5, "C2": 1000, "C3": 200}, [])
    text = "model: {experts: [mlp, mlp, mlp], embedding: {dim: 8, sets: %s, private_ids: 100}}"
    full, light = (cost_of(parse_config(text % sets, "test"), manifest) for sets in ("per_expert", "light"))
    assert full.embedding_bytes == 1205 * 3 * 8 * 4
    assert light.embedding_bytes == (1205 + 3 * (5 + 100 + 100)) * 8 * 4
    assert [one.rows for one in light.sets] == [1205, 205, 205, 205]
    assert [one.experts for one in light.sets] == [(0, 1, 2), (0,), (1,), (2,)]
    assert light.scorer_bytes("int8") == light.embedding_parameters + 4 * (1205 + 3 * 205) + 4 * light.dense_parameters


def test_bytes_of_hashed_tables_are_told():
    text = "model: {experts: [mlp, mlp, mlp], embedding: {dim: 8, sets: hashed, hashed_rows: 100}}"
    cost = cost_of(parse_config(text, "test"), manifest_of({"C1": 5, "C2": 1000, "C3": 200}, []))
    assert (cost.embedding_bytes, cost.lookups, cost.lookup_bytes) == (205 * 8 * 4, 9, 9 * 8 * 4)


def test_rowwise_adagrad_lays_private_rows_out_separately():
    config = parse_config("{model: {embedding: {sets: light}}, optimizer: {tables: {kind: rowwise_adagrad}}}", "test")
    tables = make_blueprint(config, manifest_of({"C1": 5}, [])).tables
    assert [table.name for table in tables] == ["C1__shared", "C1__0", "C1__1", "C1__2"]


def test_sets_of_different_dims_are_refused():
    config = parse_config("model: {experts: [mlp, {kind: mlp, dim: 8}], embedding: {sets: light}}", "test")
    with pytest.raises(UserError, match="light"):
        make_blueprint(config, manifest_of({"C1": 5}, []))


def test_a_model_of_plain_values_trains_with_anybodys_batches():
    model = dmoe.DMoE(
        features={"user": 50, "tags": Feature(20, pooling="mean")},
        experts=["mlp", "crossnet"],
        dim=4,
        embedding={"sets": "light", "private_ids": 3},
    )
    ids = KeyedJaggedTensor(
        ["user", "tags"],
        torch.tensor([1, 40, 2, 30, 0, 5, 19, 1]),
        lengths=torch.tensor([1, 1, 1, 1, 2, 0, 1, 1], dtype=torch.int32),
        stride=4,
    )
    batch = dmoe.Batch(torch.zeros(4, 0), ids, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    trainer = dmoe.Trainer(model)
    with torch.no_grad():
        before = model.eval()(batch.dense_BD, ids).logit_B
    losses = [float(trainer.step(batch).bce) for _ in range(10)] + [float(one.bce) for one in trainer.fit([batch] * 10)]
    assert losses[-1] < losses[0]
    assert trainer.evaluate([batch])["auc"] == 1.0
    assert before.shape == (4,)
