"""Finds a control of equal size and compute: widths of its experts that give it the parameters and FLOPs of a target model.

Shapes: L knobs, N values of a knob.
"""

import copy
import inspect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dmoe.config.config import Config
from dmoe.config.strict import checked
from dmoe.data.dataset.manifest import Manifest
from dmoe.errors import UserError
from dmoe.model.budget.cost import flops_of
from dmoe.model.build import make_blueprint, outline_of
from dmoe.model.experts import build_expert
from dmoe.model.experts.dense import linear_flops
from dmoe.model.tower import Projection

WIDTHS = {
    "mlp": ("hidden",),
    "ipnn": ("hidden",),
    "wukong": ("hidden",),
    "cin": ("layer_maps",),
    "crossnet": ("low_rank",),
    "masknet": ("block_dim",),
    "finalmlp": ("hidden_a", "hidden_c"),
}
"""The options that set the width of each kind. Other kinds (fwfm, gwpfm, gdcn) have no width and are not changed."""
MOST_KNOBS, MOST_VALUES = 3, 384


@dataclass(frozen=True)
class Knob:
    """A free width, shared by all experts with the same kind and options.

    Attributes:
        experts: indices of these experts.
        kind, options: their kind and options, with defaults filled in for the widths.
        start: the width in the config. For a list of widths, the first one; the others are scaled in proportion.
        values: [N] the possible widths, ascending.
        flops, parameters: [N] totals for these experts and their projections, at each value.
    """

    experts: tuple[int, ...]
    kind: str
    options: dict[str, Any]
    start: int
    values: np.ndarray
    flops: np.ndarray
    parameters: np.ndarray


@dataclass(frozen=True)
class Matched:
    """A matched control. The pairs (control, target) are `embedding` and `dense` parameters, and `flops` per row."""

    config: Config
    embedding: tuple[int, int]
    dense: tuple[int, int]
    flops: tuple[int, int]

    @property
    def off(self) -> float:
        """The largest relative difference between control and target."""
        return max(abs(found / asked - 1) for found, asked in (self.embedding, self.dense, self.flops))


def match(target: Config, control: Config, manifest: Manifest, tolerance: float = 0.02) -> Matched:
    """Changes the embedding dim and the widths of the control so that it has the target's embedding parameters, dense parameters and FLOPs.

    The dim is the one whose embedding parameters are nearest to those of the target. Among the widths for which dense parameters and FLOPs
    are within the tolerance, those that change the proportions between the experts least are taken. If there are none, the nearest ones.

    Args:
        control: `model.embedding.dim` and the widths of its experts are free. At most three different experts may have a width.
        tolerance: allowed relative difference in dense parameters and in FLOPs.

    Raises:
        UserError: an expert has its own dim, no expert has a width, or more than three different experts have one.
    """
    asked_embedding, asked_dense, asked_flops = _sizes(target, manifest)
    if any(isinstance(spec, dict) and "dim" in spec for spec in control.model.experts):
        raise UserError("model.experts: an expert has a dim of its own; leave it out, so that model.embedding.dim is free")
    unit = _with_dim(control, 1)
    of_one = sum(table.rows * section.dim for table in make_blueprint(unit, manifest).tables for section in table.sections)
    dim = min(max(round(asked_embedding / of_one), 1), 4096)
    control = _with_dim(control, dim)
    knobs = _knobs(control, manifest)
    _, dense, flops = _sizes(control, manifest)
    at = [int(np.searchsorted(knob.values, knob.start)) for knob in knobs]
    rest = _without(knobs, at, dense, flops)
    found = solve(knobs, asked_dense - rest[0], asked_flops - rest[1], tolerance * asked_dense, tolerance * asked_flops)
    made = _with_widths(control, knobs, found)
    embedding, dense, flops = _sizes(made, manifest)
    return Matched(made, (embedding, asked_embedding), (dense, asked_dense), (flops, asked_flops))


def solve(knobs: Sequence[Knob], parameters: float, flops: float, parameters_off: float, flops_off: float) -> list[int]:
    """The best value of each knob, from an exhaustive search over all combinations.

    Among the combinations within the bounds, the one with the least variance of log(value / start) over the knobs. If none is within the
    bounds, the one with the least max(|parameters off| / bound, |FLOPs off| / bound). All combinations of the knobs but the last are tried
    one by one; the values of the last knob are evaluated together in a vector operation.

    Args:
        parameters, flops: the totals that the experts of all knobs should have.
        parameters_off, flops_off: the bounds: the largest allowed absolute difference of each total.
    """
    *others, last = knobs
    logs_N = np.log(last.values / last.start)
    best: tuple[tuple[int, float], list[int]] | None = None
    for picks in itertools.product(*(range(len(knob.values)) for knob in others)):
        left = _without(others, picks, parameters, flops)
        off_N = np.maximum(np.abs(last.parameters - left[0]) / parameters_off, np.abs(last.flops - left[1]) / flops_off)
        if (within := np.flatnonzero(off_N <= 1)).size:
            logs = np.array([math.log(knob.values[index] / knob.start) for knob, index in zip(others, picks, strict=True)])
            spread_W = _variance(logs, logs_N[within])
            index = int(within[spread_W.argmin()])
            rank = (0, float(spread_W.min()))
        else:
            index = int(off_N.argmin())
            rank = (1, float(off_N[index]))
        if best is None or rank < best[0]:
            best = rank, [*(int(knob.values[i]) for knob, i in zip(others, picks, strict=True)), int(last.values[index])]
    assert best is not None
    return best[1]


def _without(knobs: Sequence[Knob], picks: Sequence[int], parameters: float, flops: float) -> tuple[float, float]:
    """The parameters and the FLOPs that are left without the experts of some knobs, each at its value of this index."""
    taken = list(zip(knobs, picks, strict=True))
    return parameters - sum(int(knob.parameters[at]) for knob, at in taken), flops - sum(int(knob.flops[at]) for knob, at in taken)


def _variance(logs: np.ndarray, last_N: np.ndarray) -> np.ndarray:
    """[N]: the variance of `logs` and one more number, for each number in `last_N`."""
    count = len(logs) + 1
    mean_N = (logs.sum() + last_N) / count
    return ((logs**2).sum() + last_N**2) / count - mean_N**2


def _sizes(config: Config, manifest: Manifest) -> tuple[int, int, int]:
    """Embedding parameters, dense parameters, and FLOPs of the forward pass of one row."""
    blueprint = make_blueprint(config, manifest)
    mixture = outline_of(config, blueprint)
    embedding = sum(table.rows * section.dim for table in blueprint.tables for section in table.sections)
    return embedding, sum(p.numel() for p in mixture.parameters()), sum(flops_of(mixture, config.model.expert_dim).values())


def _knobs(config: Config, manifest: Manifest) -> list[Knob]:
    blueprint = make_blueprint(config, manifest)
    fields = len(blueprint.features) + bool(blueprint.dense)
    alike: dict[str, list[int]] = {}
    for number, (kind, options) in enumerate(blueprint.experts):
        if kind in WIDTHS and (kind != "crossnet" or options.get("low_rank")):
            alike.setdefault(f"{kind} {sorted(options.items())}", []).append(number)
    if not alike:
        raise UserError("model.experts: none has a width that is free (mlp, ipnn, wukong, cin, masknet, finalmlp, crossnet with low_rank)")
    if len(alike) > MOST_KNOBS:
        raise UserError(f"model.experts: {len(alike)} different experts with widths, expected at most {MOST_KNOBS} to solve for")
    return [_knob(config, numbers, blueprint.experts[numbers[0]], fields, blueprint.set_dims[0]) for numbers in alike.values()]


def _knob(config: Config, numbers: Sequence[int], spec: tuple[str, dict[str, Any]], fields: int, dim: int) -> Knob:
    kind, given = spec
    with torch.device("meta"):
        defaults = inspect.signature(type(build_expert(kind, fields, dim, **given))).parameters
        options = {name: defaults[name].default for name in WIDTHS[kind]} | given
        start = _first(kind, options)
        # All small widths; larger widths in steps of about 2 %, since nearly equal widths need not all be tried.
        values = np.unique(np.concatenate([[start], np.geomspace(1, 8 * start + 64, MOST_VALUES).round().astype(int)]))
        sizes = []
        for value in values.tolist():
            expert: Any = build_expert(kind, fields, dim, **_scaled(kind, options, value))
            projection = Projection(int(expert.out_dim), config.model.expert_dim, config.model.expert_norm, config.model.activation)
            parameters = sum(p.numel() for module in (expert, projection) for p in module.parameters())
            sizes.append((int(expert.flops()) + linear_flops(projection), parameters))
    flops, parameters = (np.array(column, np.int64) * len(numbers) for column in zip(*sizes, strict=True))
    return Knob(tuple(numbers), kind, options, start, values, flops, parameters)


def _first(kind: str, options: dict[str, Any]) -> int:
    found = options[WIDTHS[kind][0]]
    return int(found if isinstance(found, int) else found[0])


def _scaled(kind: str, options: dict[str, Any], value: int) -> dict[str, Any]:
    """The options with the first width set to `value`, and the other widths scaled in proportion."""
    factor, out = value / _first(kind, options), copy.deepcopy(options)
    for name in WIDTHS[kind]:
        found = options[name]
        out[name] = max(round(found * factor), 1) if isinstance(found, int) else [max(round(width * factor), 1) for width in found]
    return out


def _with_dim(config: Config, dim: int) -> Config:
    tree = config.model_dump()
    tree["model"]["embedding"]["dim"] = dim
    return checked(Config.model_validate, tree, "control")


def _with_widths(config: Config, knobs: Sequence[Knob], values: Sequence[int]) -> Config:
    tree = config.model_dump()
    experts = [{"kind": spec} if isinstance(spec, str) else dict(spec) for spec in tree["model"]["experts"]]
    for knob, value in zip(knobs, values, strict=True):
        for number in knob.experts:
            experts[number] |= _scaled(knob.kind, knob.options, value)
    tree["model"]["experts"] = experts
    return checked(Config.model_validate, tree, "control")
