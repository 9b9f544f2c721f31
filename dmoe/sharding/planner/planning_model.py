"""The planner's input for a model, from its config and table sizes; needs no GPU, process group or memory for tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dmoe.config.config import Config
from dmoe.config.strict import checked
from dmoe.config.yaml_files import read_mapping
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.errors import UserError, one_line, shown
from dmoe.model.budget.cost import flops_of
from dmoe.model.build import Blueprint, make_blueprint, outline_of
from dmoe.model.embedding.tables import Table
from dmoe.processes.alive import note
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.lookup import Use
from dmoe.sharding.planner.planner import plan_tables
from dmoe.sharding.planner.search.search import GAP


@dataclass(frozen=True)
class Described:
    """The planner's input: the config, the tables, and the size of the dense part.

    Attributes:
        dense_bytes: bytes of the parameters of the dense part.
        flops: FLOPs of the forward pass of one row; a multiply-add counts as 2.
        uses: lookup statistics by feature, from `table_use.with_use`.
    """

    config: Config
    manifest: Manifest
    blueprint: Blueprint
    dense_bytes: int
    flops: int
    uses: Mapping[str, Use] = field(default_factory=dict)

    @property
    def tables(self) -> Sequence[Table]:
        return self.blueprint.tables

    def plan(self, cluster: Cluster, explain: bool = True, gap: float = GAP, keep_best: bool = False) -> dict[str, Any]:
        """The plan for a cluster; see `plan_tables`."""
        note(f"plans {len(self.tables):,} tables for {cluster.name}")
        return plan_tables(self.tables, self.config, cluster, self.dense_bytes, explain, gap, keep_best, self.uses)


def describe(config: Config, manifest: Manifest) -> Described:
    """The planner's input for a config and a data set. Builds an outline of the dense part to get its size."""
    blueprint = make_blueprint(config, manifest)
    mixture = outline_of(config, blueprint)
    dense = sum(parameter.numel() * parameter.element_size() for parameter in mixture.parameters())
    return Described(config, manifest, blueprint, dense, sum(flops_of(mixture, config.model.expert_dim).values()))


def load_sizes(config: Config, cardinalities: str | None) -> Manifest:
    """The manifest of the data set, or one made from a file `feature: cardinality` (YAML or JSON; `dense: 13` is the number of numeric
    features).

    Raises:
        UserError: neither exists, or a cardinality is not an integer.
    """
    if not cardinalities:
        if not config.data.path:
            raise UserError("--config: its data.path is empty; give --data DATASET, or --cardinalities FILE with a line a feature")
        return load_manifest(config.data.path)
    expected = "a line a feature, such as 'C1: 40000000'"
    asked_by = f"--cardinalities {cardinalities}"
    return manifest_of(read_mapping(cardinalities, asked_by, "file of cardinalities", expected), cardinalities)


def manifest_of(sizes: dict[str, Any], where: str) -> Manifest:
    """A manifest without rows, with cardinalities only."""
    sizes = dict(sizes)
    dense = sizes.pop("dense", 0)
    if type(dense) is not int or not 0 <= dense <= 10_000:
        raise UserError(f"{where}: dense: expected the number of numeric features, found {shown(dense)}")
    features = []
    for name, rows in sizes.items():
        if type(rows) is not int or not 2 <= rows < 2**31:
            raise UserError(f"{where}: {one_line(name)}: expected a cardinality from 2 to {2**31 - 1:,}, found {shown(rows)}")
        features.append({"name": name, "kind": "token", "cardinality": rows, "missing_share": 0.0, "rare_share": 0.0})
    if not features:
        raise UserError(f"{where}: no feature in it")
    numbers = [{"name": f"I{index + 1}", "transform": "none", "missing_share": 0.0} for index in range(dense)]
    manifest = {"dataset": one_line(where), "dense": numbers, "categorical": features, "splits": {}}
    return checked(Manifest.model_validate, manifest, where)
