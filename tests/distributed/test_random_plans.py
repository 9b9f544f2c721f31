"""Random small models, plans, layouts and numbers of ranks: each trains as one rank does, and a checkpoint of any resumes under any other.

Features have 2 ids and more, so that many shards have no rows.
"""

import random

import numpy as np
import pytest

from dmoe.testing import resume
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import train_and_tell
from tests.distributed.test_invariance import PLANS, check

CUT_COLUMNS = {"column_wise", "table_column_wise", "grid_shard"}


class Draw(random.Random):
    """Draws data, models and plans."""

    def cardinalities(self) -> tuple[int, ...]:
        return tuple(self.choice([2, 2, 3, 4, 5, 7, 9, 13, 30, 60]) for _ in range(self.randrange(2, 6)))

    def model(self) -> list[str]:
        """Overrides of a config; `types` are the sharding types that its optimizer has."""
        sets = self.choice(["per_expert", "per_expert", "shared", "light", "hashed"])
        dims = [self.choice([4, 6, 8, 10, 12, 20]) for _ in range(self.randrange(1, 4))]
        if sets != "per_expert":
            dims = dims[:1] * len(dims)
        experts = [
            self.choice([f"{{kind: crossnet, dim: {dim}}}", f"{{kind: mlp, hidden: [8], activation: silu, dim: {dim}}}"]) for dim in dims
        ]
        kind = self.choice(["adagrad", "sgd", "rowwise_adagrad"])
        by_row = kind == "rowwise_adagrad"
        self.types = [one for one in PLANS if not (by_row and one in CUT_COLUMNS)]
        sizes = f"private_ids: {self.choice([1, 3, 5, 100])}, hashed_rows: {self.choice([2, 5, 11])}"
        # Not fewer rows in a batch: their correlation is so ill-conditioned that rounding grows to 1e-4 in some steps.
        batch_size = self.choice([33, 50, 64])
        layout = "separate" if by_row else self.choice(["wide", "separate"])
        embedding = f"{{sets: {sets}, {sizes}, layout: {layout}, dim: {dims[0]}}}"
        return [
            f"model.experts=[{', '.join(experts)}]",
            f"model.embedding={embedding}",
            "model.activation=silu",
            f"optimizer.tables.kind={kind}",
            f"train.batch_size={batch_size}",
        ]

    def plan(self, features: int) -> str:
        if self.random() < 0.4:
            return f"sharding.types=[{self.choice(self.types)}]"
        each = ", ".join(f"C{number + 1}: {{types: [{self.choice(self.types)}]}}" for number in range(features))
        return f"sharding.tables={{{each}}}"


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
def test_a_random_plan_is_rounding(ranks, tmp_path, seed):
    draw = Draw(seed)
    cardinalities, model = draw.cardinalities(), draw.model()
    make_data_set(tmp_path / "d", cardinalities=cardinalities, seed=seed)
    common = (str(tmp_path / "d"), 8, *model)
    (expected,) = ranks(1).run(train_and_tell, *common, "sharding.types=[table_wise]")
    check(ranks(draw.choice([2, 3, 4])).run(train_and_tell, *common, draw.plan(len(cardinalities))), expected)


@pytest.mark.parametrize("seed", [100, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(101, 106))])
def test_a_random_plan_resumes_under_another(ranks, tmp_path, seed):
    draw = Draw(seed)
    cardinalities, model = draw.cardinalities(), draw.model()
    make_data_set(tmp_path / "d", cardinalities=cardinalities, seed=seed)
    common, step = (str(tmp_path / "d"),), str(tmp_path / f"step-{resume.BEFORE:09d}")
    (expected,) = ranks(1).run(resume.undisturbed, *common, *model, "sharding.types=[table_wise]")
    (saved, *_) = ranks(draw.choice([1, 2, 3, 4])).run(resume.save, *common, step, *model, draw.plan(len(cardinalities)))
    resumed = ranks(draw.choice([1, 2, 3, 4])).run(resume.load_and_go_on, *common, step, *model, draw.plan(len(cardinalities)))
    for loaded, (losses, tables, dense) in resumed:
        assert loaded.keys() == saved.keys()
        for name, values in saved.items():
            np.testing.assert_array_equal(loaded[name], values, err_msg=name)
        check([(losses, tables, dense, [])], (*expected, []))
