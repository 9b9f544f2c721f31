"""A TorchRec ShardingPlanner for any model, with the same search as for dmoe's own models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import nn
from torch.distributed import ProcessGroup
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.types import ModuleSharder, ShardingPlan, ShardingPlanner

from dmoe.data.dataset.manifest import load_manifest
from dmoe.distributed import device_of_this_rank, on_rank_0, world_size
from dmoe.errors import UserError
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.job_plan import dense_bytes_of, placed_row
from dmoe.sharding.plan.module_plan import Plan
from dmoe.sharding.plan.plan_file import hash_of, model_hash
from dmoe.sharding.plan.sharders import sharders as every_sharder
from dmoe.sharding.planner.any_module import Found, rules_in, tables_in
from dmoe.sharding.planner.cluster import Cluster, cluster_of_this_job, parse_cluster, topology_of
from dmoe.sharding.planner.constraints import Rule
from dmoe.sharding.planner.cost.lookup import OPTIMIZERS
from dmoe.sharding.planner.cost.table_use import Counted, groups_in, uses_of
from dmoe.sharding.planner.planner import Job, plan_by_rules, plan_of_rows
from dmoe.sharding.planner.room import room_of

Sharders = Sequence[ModuleSharder[nn.Module]]


class Planner(ShardingPlanner):
    """Plans the tables of any model: several EmbeddingBagCollections and EmbeddingCollections, weighted features, shared tables.

    The planner needs neither the cluster nor memory for the tables: the model can be on the meta device.

    Args:
        cluster: for example "16x8:h100" or "1x2:cpu" (`dmoe plan make --help`); None for the cluster of this process group.
        batch_size: rows of the global batch, over all ranks.
        constraints: TorchRec's ParameterConstraints, by table name or a pattern of names. The fields num_poolings, device_group,
            key_value_params and use_virtual_table are refused.
        optimizer: optimizer of tables whose parameters have none from `apply_optimizer_in_backward`; determines the bytes of state.
        data: folder of a data set of `dmoe data` whose features have the same names as the model's. Its counts give the distinct ids per
            batch and the cache misses; its mean ids per row are the pooling factors where no constraint sets them. A table that several
            features use, or that has fewer rows than its feature has ids, gets no measured lookup statistics.
        comm_precision: fp32, fp16 or bf16; precision in which embeddings are sent between ranks, as set by the codecs of the sharders.

    Examples:
        >>> import dmoe
        >>> from torchrec.modules.embedding_configs import EmbeddingBagConfig
        >>> from torchrec.modules.embedding_modules import EmbeddingBagCollection
        >>> def table(name: str, rows: int) -> EmbeddingBagConfig:
        ...     return EmbeddingBagConfig(name=name, num_embeddings=rows, embedding_dim=64, feature_names=[f"{name}_ids"])
        >>> tables = [table("user", 40_000_000), table("item", 3_000_000), table("site", 1000)]
        >>> model = torch.nn.ModuleDict({"bags": EmbeddingBagCollection(tables, device=torch.device("meta"))})
        >>> plan = dmoe.Planner("2x8:h100", batch_size=16384).plan(model)
        >>> sorted(plan.plan["bags"])
        ['item', 'site', 'user']
        >>> print(plan.show(top=2).splitlines()[0])
        2x8:h100: 16 ranks on 2 nodes of 8, global batch 16,384, tables by sgd
    """

    def __init__(
        self,
        cluster: str | Cluster | None = None,
        *,
        batch_size: int,
        constraints: Mapping[str, ParameterConstraints] | None = None,
        optimizer: str = "sgd",
        comm_precision: str = "fp32",
        data: str = "",
    ) -> None:
        if optimizer not in OPTIMIZERS:
            raise UserError(f"optimizer: '{optimizer}', expected one of {', '.join(OPTIMIZERS)}")
        if batch_size < 1:
            raise UserError(f"batch_size: {batch_size}, expected at least 1")
        self.cluster = parse_cluster(cluster) if isinstance(cluster, str) else cluster
        self.batch_size, self.optimizer, self.comm_precision = batch_size, optimizer, comm_precision
        self.constraints = dict(constraints or {})
        self.data = data
        self.groups: dict[str, Counted] | None = None

    def plan(self, module: nn.Module, sharders: Sharders | None = None, explain: bool = True) -> Plan:
        """Makes the plan in this process.

        Args:
            sharders: the sharders passed to DistributedModelParallel; they determine the allowed types and kernels. None allows all that
                TorchRec can run, including row-wise types on CPUs.
            explain: keep the other candidates tried for each table, for `Plan.why`.

        Raises:
            UserError: no plan fits, or a constraint or a table cannot be planned; the message says what to do.
        """
        found, cluster, job, tables, rules, extras = self._asked(module, sharders)
        kept = plan_by_rules(tables, rules, job, cluster, explain)
        for name, row in kept["tables"].items():
            row |= _in_module(found[name], rules[name])
        return Plan.of(kept, extras)

    def collective_plan(self, module: nn.Module, sharders: Sharders | None = None, pg: ProcessGroup | None = None) -> Plan:
        """Makes the plan on rank 0 of the default process group, and broadcasts it to all ranks.

        Raises:
            UserError: as `plan`, on every rank; also if `pg` is not the default group.
        """
        if pg is not None and pg.size() != world_size():
            raise UserError("collective_plan: dmoe.Planner plans for the default process group")
        return on_rank_0(lambda: self.plan(module, sharders))

    def describe(self, module: nn.Module, plan: ShardingPlan) -> Plan:
        """Converts the plan of another planner, such as TorchRec's EmbeddingShardingPlanner, to show, save, compare or check it.

        Raises:
            UserError: the plan is not for these tables, or uses a kernel that plan files do not support.
        """
        found, cluster, job, tables, rules, _ = self._asked(module, None)
        rows = {}
        for table in tables:
            one, rule = found[table.name], rules[table.name]
            placed: Any = (plan.get_plan_for_module(one.path) or {}).get(one.parameter)
            if placed is None:
                raise UserError(f"{one.label}: the plan has no such table")
            rows[table.name] = placed_row(placed, table, rule.lookup.ids_a_row, rule.batch_size) | _in_module(one, rule)
            if rule.lookup.use is not None:
                rows[table.name]["use"] = asdict(rule.lookup.use)
        room = room_of(tables, rules, cluster, topology_of(cluster), job.dense_bytes)
        return Plan.of(plan_of_rows(rows, job, cluster, room, model_hash(tables, job.optimizer)))

    def _measured(self, found: Mapping[str, Found], rules: Mapping[str, Rule]) -> dict[str, Rule]:
        """The rules with the lookup statistics of the data set."""
        if not self.data:
            return dict(rules)
        manifest = load_manifest(self.data)
        if self.groups is None:
            self.groups = groups_in(self.data, manifest)
        features = {feature.name: feature for feature in manifest.categorical}
        uses, measured = uses_of(self.groups, self.batch_size), {}
        for name, rule in rules.items():
            one, lookup = found[name], rule.lookup
            if all(ids == 1 for ids in lookup.ids):
                ids = tuple(features[feature].mean_ids if feature in features else 1.0 for feature in one.features)
                lookup = replace(lookup, ids=ids)
            feature = features.get(one.features[0]) if len(one.features) == 1 else None
            if feature is not None and feature.cardinality <= one.size[0]:
                lookup = replace(lookup, use=uses.get(feature.name))
            measured[name] = replace(rule, lookup=lookup)
        return measured

    def _optimizer(self, found: Mapping[str, Found]) -> str:
        kinds = {one.optimizer or self.optimizer: name for name, one in found.items()}
        if len(kinds) > 1:
            told = " and ".join(f"{name} by {kind}" for kind, name in kinds.items())
            raise UserError(f"tables of several optimizers ({told}): dmoe.Planner plans one a model")
        return next(iter(kinds))

    def _asked(
        self, module: nn.Module, sharders: Sharders | None
    ) -> tuple[dict[str, Found], Cluster, Job, list[Table], dict[str, Rule], dict[str, dict[str, Any]]]:
        """The tables of the model as found, the cluster, the job; and the tables, rules and constraints that are passed on (`rules_in`)."""
        found = tables_in(module)
        cluster = self.cluster or cluster_of_this_job(device_of_this_rank().type)
        optimizer = self._optimizer(found)
        tables, rules, extras = rules_in(found, self.constraints, sharders or every_sharder(), cluster, self.batch_size, optimizer)
        constraints = hash_of({name: str(one) for name, one in self.constraints.items()})
        dense = dense_bytes_of(module)
        job = Job(optimizer, self.batch_size, dense, self.comm_precision, constraints=constraints, variant=type(module).__name__)
        return found, cluster, job, tables, self._measured(found, rules), extras


def _in_module(found: Found, rule: Rule) -> dict[str, Any]:
    """What the entry of a table says in addition to that of a config's model."""
    return {"path": found.path, "parameter": found.parameter, "lookup": rule.lookup.as_json()}
