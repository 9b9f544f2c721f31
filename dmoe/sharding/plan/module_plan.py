"""A plan for any TorchRec model: a ShardingPlan for DistributedModelParallel, with the explanations and figures of a plan file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding, ShardingPlan

from dmoe.errors import UserError, nearest
from dmoe.model.embedding.tables import module_name
from dmoe.names import quoted
from dmoe.sharding.plan.job_plan import parameter_sharding
from dmoe.sharding.plan.plan_file import check_plan, read_plan, write_plan
from dmoe.sharding.plan.report.diff import diff_document, difference
from dmoe.sharding.plan.report.plan_stats import Figures, figures_of
from dmoe.sharding.plan.report.show import View, plan_document
from dmoe.sharding.planner.any_module import tables_in

HERE = "the plan"
COLLECTION = "embedding.ebc"
"""Path of the EmbeddingBagCollection in a `dmoe.DMoE`."""


@dataclass
class Plan(ShardingPlan):
    """A TorchRec `ShardingPlan` with explanations, made by `dmoe.Planner` or read from a file.

    Attributes:
        plan: path of the module -> table -> ParameterSharding, as in TorchRec.
        kept: the data of the plan file; `dmoe plan show|diff|check FILE` use the same data.
    """

    kept: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        kept: dict[str, Any],
        extras: Mapping[str, Mapping[str, Any]] | None = None,
        where: str = HERE,
        paths: Mapping[str, str] | None = None,
    ) -> "Plan":
        """Makes a Plan from the data of a plan file.

        Args:
            extras: table -> further fields of its ParameterSharding, which are not saved.
            paths: table name in the module -> path of its collection, for tables whose entry has no path.

        Raises:
            UserError: the data are damaged.
        """
        cluster = check_plan(kept, where)
        device = torch.device(cluster.device.kind)
        modules: dict[str, dict[str, ParameterSharding]] = {}
        for number, (name, row) in enumerate(kept["tables"].items()):
            made = parameter_sharding(row, device, cluster.ranks, cluster.ranks_a_node)
            for key, value in (extras or {}).get(name, {}).items():
                setattr(made, key, value)
            parameter = _name_in_module(number, name, row)
            path = row.get("path")
            if path is None:
                path = (paths or {}).get(parameter, COLLECTION)
            modules.setdefault(path, {})[row.get("parameter") or parameter] = made
        return Plan({path: EmbeddingModuleShardingPlan(tables) for path, tables in modules.items()}, kept)

    @staticmethod
    def load(path: str, module: nn.Module | None = None) -> "Plan":
        """Reads a plan file written by `Plan.save` or `dmoe plan make`, or the one in the directory of a run.

        Args:
            module: if given, a plan for other tables than those of this model is refused. The plan of a config's model does not contain the
                module paths of its tables: they are searched in this module, or assumed to be those of a `dmoe.DMoE` if it is None.

        Raises:
            UserError: the file does not exist, is damaged, or is for another model; the message names the table.
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
        return Plan.of(kept, where=path, paths={name: one.path for name, one in found.items()})

    def save(self, path: str) -> None:
        """Writes the plan to a file that can be read, edited and compared."""
        write_plan(path, self.kept)

    @property
    def figures(self) -> Figures:
        """Bytes and predicted milliseconds of each rank and table."""
        return figures_of(self.kept, HERE)

    def show(self, **view: Any) -> str:
        """The plan as text of at most 100 columns; `view`: fields of `dmoe.sharding.plan.report.show.View`, such as top=10."""
        return plan_document(self.figures, View(**view)).text()

    def why(self, table: str) -> str:
        """The other candidates tried for a table (or for the tables of a pattern), and the cost of the plan with each.

        Raises:
            UserError: the table does not exist.
        """
        if table not in self.kept["tables"] and not any(letter in table for letter in "*?["):
            raise UserError(f"{HERE}: no table {quoted(table)}{nearest(table, self.kept['tables'])}")
        return self.show(why=table)

    def diff(self, other: "Plan") -> str:
        """The bytes that a change from this plan to the other one moves, and the change in predicted cost."""
        return diff_document(difference(self.kept, other.kept, "this", "other"), "this", "other").text()


def _name_in_module(number: int, name: str, row: Mapping[str, Any]) -> str:
    """The name that `tables_in` gives to a table of a plan. In a config's model, it consists of the table's number and name."""
    return module_name(number, name) if row.get("path") is None else name
