"""A plan for any TorchRec model: what DistributedModelParallel takes, with the reasons and figures of a plan file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding, ShardingPlan

from dmoe.errors import UserError, nearest
from dmoe.model.tables import module_name
from dmoe.names import quoted
from dmoe.sharding.plan.job_plan import parameter_sharding
from dmoe.sharding.plan.plan_file import check_plan, read_plan, write_plan
from dmoe.sharding.plan.report import diff, show
from dmoe.sharding.plan.report.plan_stats import Figures, figures_of
from dmoe.sharding.planner.any_module import tables_in

HERE = "the plan"
COLLECTION = "embedding.ebc"
"""The path of the tables' collection in a `dmoe.DMoE`."""


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
            UserError: damaged.
        """
        return _placed(kept, where, {}, extras or {})

    @staticmethod
    def load(path: str, module: nn.Module | None = None) -> "Plan":
        """Reads a saved plan, by whomever it was made: `Plan.save`, `dmoe plan make`, or a run, whose directory keeps its own.

        Args:
            module: refuses a plan that was made for other tables than this model's. A plan of a config's model does not say where in a
                module the tables are: they are looked for in this one, and taken to be in a `dmoe.DMoE` where it is None.

        Raises:
            UserError: no such file, damaged, or another model's; names the table.
        """
        kept = read_plan(path)
        found = {} if module is None else tables_in(module)
        if module is not None:
            sizes = {name: list(one.size) for name, one in found.items()}
            planned = {_name_in_module(number, name, row): (name, row["size"]) for number, (name, row) in enumerate(kept["tables"].items())}
            for name in sorted(sizes.keys() | planned.keys()):
                label, size = planned.get(name, (name, None))
                if sizes.get(name) != size:
                    there, here = ("x".join(map(str, one)) if one else "absent" for one in (size, sizes.get(name)))
                    raise UserError(f"{path}: table {quoted(label)} is {there} there and {here} in the model; plan again")
        return _placed(kept, path, {name: one.path for name, one in found.items()}, {})

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


def _placed(kept: dict[str, Any], where: str, paths: Mapping[str, str], extras: Mapping[str, Mapping[str, Any]]) -> Plan:
    """
    Args:
        paths: of collections, by table's name in the module, for tables whose entry has none.
    """
    cluster = check_plan(kept, where)
    device = torch.device(cluster.device.kind)
    modules: dict[str, dict[str, ParameterSharding]] = {}
    for number, (name, row) in enumerate(kept["tables"].items()):
        made = parameter_sharding(row, device, cluster.ranks, cluster.ranks_a_node)
        for key, value in extras.get(name, {}).items():
            setattr(made, key, value)
        parameter = _name_in_module(number, name, row)
        path = row.get("path")
        if path is None:
            path = paths.get(parameter, COLLECTION)
        modules.setdefault(path, {})[row.get("parameter") or parameter] = made
    return Plan({path: EmbeddingModuleShardingPlan(tables) for path, tables in modules.items()}, kept)


def _name_in_module(number: int, name: str, row: Mapping[str, Any]) -> str:
    """What `tables_in` calls a plan's table: those of a config's model have modules named by their number and name."""
    return module_name(number, name) if row.get("path") is None else name
