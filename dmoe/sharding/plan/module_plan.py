"""A plan for any TorchRec model: what DistributedModelParallel takes, with the reasons and figures of a plan file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding, ShardingPlan

from dmoe.errors import UserError, nearest
from dmoe.names import quoted
from dmoe.sharding.plan.job_plan import parameter_sharding
from dmoe.sharding.plan.plan_file import check_plan, read_plan, write_plan
from dmoe.sharding.plan.report import diff, show
from dmoe.sharding.plan.report.plan_stats import Figures, figures_of
from dmoe.sharding.planner.any_module import tables_in

HERE = "the plan"


@dataclass
class Plan(ShardingPlan):
    """A TorchRec `ShardingPlan` that also knows why: made by `dmoe.Planner`, or read from a file.

    Attributes:
        plan: module's path -> table -> ParameterSharding, as TorchRec reads it.
        kept: the plan file's data. `dmoe plan show|diff|check FILE` read the same from the saved file.
    """

    kept: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(kept: dict[str, Any], extras: Mapping[str, Mapping[str, Any]] | None = None, where: str = HERE) -> "Plan":
        """Of a plan file's data.

        Args:
            extras: table -> further fields of its ParameterSharding, such as cache_params. They are not saved.

        Raises:
            UserError: damaged, or made for a config's model, whose plan names no modules.
        """
        cluster = check_plan(kept, where)
        device = torch.device(cluster.device.kind)
        modules: dict[str, dict[str, ParameterSharding]] = {}
        for name, row in kept["tables"].items():
            if row.get("path") is None or row.get("parameter") is None:
                raise UserError(f"{where}: table {quoted(name)} names no module: the plan is for a config's model, which trains by --plan")
            made = parameter_sharding(row, device, cluster.ranks, cluster.ranks_a_node)
            for key, value in (extras or {}).get(name, {}).items():
                setattr(made, key, value)
            modules.setdefault(row["path"], {})[row["parameter"]] = made
        return Plan({path: EmbeddingModuleShardingPlan(tables) for path, tables in modules.items()}, kept)

    @staticmethod
    def load(path: str, module: nn.Module | None = None) -> "Plan":
        """Reads a saved plan.

        Args:
            module: refuses a plan that was made for other tables than this model's.

        Raises:
            UserError: no such file, damaged, or another model's; names the table.
        """
        plan = Plan.of(read_plan(path), where=path)
        if module is not None:
            sizes = {name: list(found.size) for name, found in tables_in(module).items()}
            kept = {name: list(row["size"]) for name, row in plan.kept["tables"].items()}
            if differing := [name for name in sorted(sizes.keys() | kept.keys()) if sizes.get(name) != kept.get(name)]:
                name = differing[0]
                there, here = ("x".join(map(str, one[name])) if name in one else "absent" for one in (kept, sizes))
                raise UserError(f"{path}: table {quoted(name)} is {there} there and {here} in the model; plan again")
        return plan

    def save(self, path: str) -> None:
        """Writes the plan as a file that people can read, edit and compare."""
        write_plan(path, self.kept)

    @property
    def figures(self) -> Figures:
        """What every rank and table holds and is predicted to take: bytes and milliseconds."""
        return figures_of(self.kept, HERE)

    def show(self, **view: Any) -> str:
        """The plan as text of at most 100 columns; `view` as the fields of `dmoe.sharding.plan.report.show.View`, such as top=10."""
        return "\n".join(show.as_lines(self.figures, show.View(**view)))

    def why(self, table: str) -> str:
        """What else was tried for a table (or those of a pattern), and what the plan would have cost.

        Raises:
            UserError: no such table.
        """
        if table not in self.kept["tables"] and not any(letter in table for letter in "*?["):
            raise UserError(f"{HERE}: no table {quoted(table)}{nearest(table, self.kept['tables'])}")
        return self.show(why=table)

    def diff(self, other: "Plan") -> str:
        """What going from this plan to the other moves, and what it gains."""
        return "\n".join(diff.as_lines(diff.difference(self.kept, other.kept, "this", "other"), "this", "other"))
