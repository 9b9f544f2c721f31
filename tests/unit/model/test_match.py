"""The solver of equal-cost controls against brute force, and a control's sizes against counting the model that it makes."""

import itertools

import numpy as np
import pytest

from dmoe.config.config import parse_config
from dmoe.errors import UserError
from dmoe.model.budget.cost import cost_of
from dmoe.model.budget.match import Knob, match, solve
from dmoe.model.build import build_model, make_blueprint
from dmoe.model.dmoe import manifest_of

MANIFEST = manifest_of({"C1": 500, "C2": 90, "C3": 300}, ["I1", "I2"])


def knobs(count: int, seed: int) -> list[Knob]:
    """Sizes that rise with the value, no faster and no slower than widths make them: a line and a parabola."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        values = np.unique(rng.integers(1, 60, 14))
        a, b, c, d = rng.uniform(1, 50, 4)
        flops, parameters = (a * values + b * values**2).astype(np.int64), (c * values + d * values**2 / 9).astype(np.int64)
        found.append(Knob((0,), "mlp", {}, int(rng.choice(values)), values, flops, parameters))
    return found


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("bound", [0.001, 0.03, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_combinations_is_found(count, bound, seed):
    given = knobs(count, seed)
    rng = np.random.default_rng(seed + 100)
    there = [rng.integers(len(knob.values)) for knob in given]
    asked = [
        sum(float(of[i]) for of, i in zip(parts, there, strict=True)) * rng.uniform(0.9, 1.1)
        for parts in ([knob.parameters for knob in given], [knob.flops for knob in given])
    ]
    ranks = []
    for picks in itertools.product(*(range(len(knob.values)) for knob in given)):
        off = max(
            abs(sum(int(of[i]) for of, i in zip(parts, picks, strict=True)) - whole) / (bound * whole)
            for parts, whole in (([k.parameters for k in given], asked[0]), ([k.flops for k in given], asked[1]))
        )
        spread = float(np.var([np.log(k.values[i] / k.start) for k, i in zip(given, picks, strict=True)]))
        ranks.append(((0, spread) if off <= 1 else (1, off), [int(k.values[i]) for k, i in zip(given, picks, strict=True)]))
    found = solve(given, asked[0], asked[1], bound * asked[0], bound * asked[1])
    best = min(rank for rank, _ in ranks)
    (mine,) = [rank for rank, values in ranks if values == found]
    assert mine[0] == best[0]
    assert mine[1] == pytest.approx(best[1], abs=1e-12)


TARGET = """
model: {embedding: {dim: 8}, experts: [{kind: crossnet}, {kind: cin, layer_maps: [8, 8]}, {kind: mlp, hidden: [64, 32]}], expert_dim: 16}
"""


def test_a_wide_control_has_the_targets_size_and_compute():
    target = parse_config(TARGET, "target")
    control = parse_config(
        "model: {embedding: {sets: shared}, experts: [{kind: crossnet, low_rank: 8}, {kind: cin, layer_maps: [8, 8]},"
        " {kind: mlp, hidden: [64, 32]}], expert_dim: 16}",
        "control",
    )
    found = match(target, control, MANIFEST, 0.03)
    costs = [cost_of(one, MANIFEST) for one in (found.config, target)]
    assert found.config.model.embedding.dim == 24
    assert found.embedding == tuple(one.embedding_parameters for one in costs)
    assert found.dense == tuple(one.dense_parameters for one in costs)
    assert found.flops == tuple(one.total_flops for one in costs)
    assert found.off <= 0.03
    built = build_model(found.config, make_blueprint(found.config, MANIFEST)).mixture
    assert sum(parameter.numel() for parameter in built.parameters()) == found.dense[0]
    mlp = found.config.model.experts[2]
    assert mlp["hidden"][1] == pytest.approx(mlp["hidden"][0] / 2, abs=0.5)


def test_experts_that_are_alike_stay_alike():
    control = parse_config("model: {embedding: {sets: shared}, experts: [mlp, mlp, mlp], expert_dim: 16}", "control")
    found = match(parse_config(TARGET, "target"), control, MANIFEST)
    assert found.config.model.experts[0] == found.config.model.experts[1] == found.config.model.experts[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {experts: [crossnet, fwfm]}", "none has a width"),
        ("model: {experts: [{kind: mlp, dim: 4}, mlp]}", "dim of its own"),
        ("model: {experts: [mlp, cin, masknet, ipnn]}", "4 different"),
    ],
)
def test_what_cannot_be_solved_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        match(parse_config(TARGET, "target"), parse_config(text, "control"), MANIFEST)
