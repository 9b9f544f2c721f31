"""Plans each point of a grid of clusters, batch sizes, numbers of experts and layouts: time, cost, and where more ranks stop helping."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmoe.config.config import Config, dump_config, parse_config
from dmoe.config.yaml_files import flow_yaml
from dmoe.data.dataset.manifest import Manifest
from dmoe.errors import UserError
from dmoe.json_text import defined
from dmoe.model.build import table_layout
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.step_time import Step, shortage, step_of
from dmoe.sharding.planner.cost.table_use import Counted, uses_of
from dmoe.sharding.planner.planning_model import describe
from dmoe.sharding.planner.room import DoesNotFit

KNEE = 0.5
"""A cluster is beyond the knee if its throughput per rank is below this share of the best cluster's."""


@dataclass(frozen=True)
class Point:
    """A point of the grid. If no plan fits or the config refuses the combination, `step` is None and `problem` gives the reason."""

    cluster: Cluster
    batch_size: int
    experts: int
    layout: str
    step: Step | None
    problem: str
    seconds: float

    @property
    def series(self) -> tuple[str, int, int, str]:
        """Key of the series: the values that do not change while the number of ranks grows."""
        return self.cluster.device.name, self.batch_size, self.experts, self.layout


@dataclass(frozen=True)
class Knee:
    """The efficiency of each point of a series that fits, smallest cluster first, and where more ranks stop helping.

    Attributes:
        efficiencies: samples per second and rank, as a share of the best of the series.
        last: the largest cluster before efficiency falls below `KNEE`; None if it never does in this sweep.
        first_beyond: the first cluster with an efficiency below `KNEE`.
    """

    series: tuple[str, int, int, str]
    points: tuple[Point, ...]
    efficiencies: tuple[float, ...]
    last: Cluster | None
    first_beyond: Cluster | None


def sweep(
    config: Config,
    manifest: Manifest,
    clusters: Sequence[Cluster],
    batch_sizes: Sequence[int],
    experts: Sequence[int],
    layouts: Sequence[str],
    told: Callable[[int, int, Point], None] = lambda done, total, point: None,
    groups: Mapping[str, Counted] | None = None,
) -> list[Point]:
    """Plans every point of the grid, in the order of its arguments.

    Args:
        batch_sizes: global batch sizes; if empty, the config's.
        experts: numbers of experts; if empty, the config's. If the config has fewer, its experts are repeated.
        layouts: table layouts; if empty, the config's.
        told: progress callback; called after each point with the number of finished points, the total, and the point.
        groups: lookup counts of the data set, from `table_use.groups_in`.
    """
    grid = list(
        itertools.product(
            layouts or [config.model.embedding.layout],
            experts or [len(config.model.experts)],
            batch_sizes or [config.train.batch_size],
            clusters,
        )
    )
    points = []
    for layout, count, batch_size, cluster in grid:
        points.append(_point(config, manifest, cluster, batch_size, count, layout, groups or {}))
        told(len(points), len(grid), points[-1])
    return points


def with_experts(config: Config, count: int) -> str:
    """The override that gives the model its first `count` experts; if it has fewer, they are repeated."""
    return f"model.experts={flow_yaml(list(itertools.islice(itertools.cycle(config.model.experts), count)))}"


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """The config with `--set` overrides on top.

    Raises:
        UserError: the overrides contradict the rest of the config.
    """
    return parse_config(dump_config(config), "the config", list(overrides)) if overrides else config


def _point(
    config: Config, manifest: Manifest, cluster: Cluster, batch_size: int, count: int, layout: str, groups: Mapping[str, Counted]
) -> Point:
    began = time.perf_counter()
    step, problem = None, ""
    overrides = [f"train.batch_size={batch_size}", f"model.embedding.layout={layout}"]
    if count != len(config.model.experts):
        overrides.append(with_experts(config, count))
    try:
        model = replace(describe(changed(config, overrides), manifest), uses=uses_of(groups, batch_size))
        layout = table_layout(model.config, len(model.blueprint.set_dims))
        step = step_of(model, model.plan(cluster, explain=False), cluster)
    except DoesNotFit:
        problem = f"does not fit: {shortage(model, cluster)}"
    except UserError as error:
        problem = f"refused: {error}"
    return Point(cluster, batch_size, count, layout, step, problem, time.perf_counter() - began)


def knees(points: Sequence[Point]) -> list[Knee]:
    """The knee of each series with at least two points that fit, in the order of the grid."""
    found = []
    for series in dict.fromkeys(point.series for point in points):
        fitting = sorted((p for p in points if p.series == series and p.step), key=lambda p: (p.cluster.ranks, p.cluster.nodes))
        if len(fitting) < 2:
            continue
        a_rank = [point.step.samples_per_second / point.cluster.ranks for point in fitting if point.step]
        best = a_rank.index(max(a_rank))
        shares = tuple(one / a_rank[best] for one in a_rank)
        # Clusters smaller than the best one are slow for another reason: tables in host memory.
        beyond = next((i for i in range(best, len(shares)) if shares[i] < KNEE), None)
        last, first = (None, None) if beyond is None else (fitting[beyond - 1].cluster, fitting[beyond].cluster)
        found.append(Knee(series, tuple(fitting), shares, last, first))
    return found


def as_records(points: Sequence[Point]) -> list[dict[str, Any]]:
    """One record per point as plain data, for CSV and JSON; values that are unknown or not finite are None."""
    efficiency = {id(point): share for knee in knees(points) for point, share in zip(knee.points, knee.efficiencies, strict=True)}
    records = []
    for point in points:
        step = point.step
        records.append(
            {
                "cluster": point.cluster.name,
                "ranks": point.cluster.ranks,
                "batch_size": point.batch_size,
                "experts": point.experts,
                "layout": point.layout,
                "fits": step is not None,
                "step_ms": step and round(step.ms, 4),
                "tables_ms": step and round(step.tables_ms, 4),
                "dense_ms": step and round(step.dense_ms, 4),
                "samples_per_second": step and round(step.samples_per_second, 1),
                "worst_rank_memory": step and step.memory,
                "room": step and step.room,
                "worst_rank_host_memory": step and step.host_memory,
                "usd_an_hour": step and step.usd_an_hour,
                "usd_per_billion_samples": step and round(step.usd_a_billion, 4),
                "efficiency": round(efficiency[id(point)], 4) if id(point) in efficiency else None,
                "problem": point.problem,
                "planning_seconds": round(point.seconds, 3),
            }
        )
    return [defined(record) for record in records]


def in_words(knee: Knee) -> str:
    """A sentence that says where more ranks stop helping."""
    device, batch, experts, layout = knee.series
    name = f"{device}, batch {batch:,}, {experts} expert{'s' * (experts > 1)}, {layout}"
    sizes = [f"{point.cluster.nodes}x{point.cluster.ranks_a_node}" for point in knee.points]
    each = ", ".join(f"{size} {share:.0%}" for size, share in zip(sizes, knee.efficiencies, strict=True))
    if knee.last is None or knee.first_beyond is None:
        return f"{name}: no knee in sight, every rank still does over {KNEE:.0%} of the best one's work ({each})"
    return f"{name}: beyond {knee.last.ranks} ranks more stop helping, {knee.first_beyond.name} is under {KNEE:.0%} a rank ({each})"
