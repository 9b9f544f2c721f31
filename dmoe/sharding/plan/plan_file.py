"""The plan file: versioned JSON that a person can read and edit, checked whenever it is read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dmoe.config import Config
from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.model.tables import Table
from dmoe.names import check_text, quoted
from dmoe.paths import PATHS, read_bounded
from dmoe.sharding.plan.qcomm import BYTES
from dmoe.sharding.plan.shard_layout import MAX_COLUMNS, MAX_ROWS, check_cuts, whole
from dmoe.sharding.planner.cluster import Cluster, cluster_from_json

FORMAT, VERSION = "dmoe-plan", 2
MAX_BYTES = 256 << 20
TYPES = ("data_parallel", "table_wise", "column_wise", "row_wise", "table_row_wise", "table_column_wise", "grid_shard")
KERNELS = ("dense", "fused", "fused_uvm", "fused_uvm_caching")


def hash_of(value: Any) -> str:
    """16 hexadecimal digits that identify plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def model_hash(tables: Sequence[Table], optimizer: str) -> str:
    """Of what a plan depends on: the tables' names, sizes and sections, and their optimiser."""
    shape = [[table.name, table.rows, [[section.offset, section.dim] for section in table.sections]] for table in tables]
    return hash_of([shape, optimizer])


def constraints_hash(config: Config) -> str:
    return hash_of(config.sharding.model_dump(mode="json", exclude={"plan", "comm_precision"}))


def write_plan(path: str, plan: Mapping[str, Any]) -> None:
    """Writes a plan, a shard a line."""
    with PATHS.open(path, "w") as file:
        file.write(as_text(plan))


def as_text(plan: Mapping[str, Any]) -> str:
    """JSON indented by tables, with what a person edits (a shard) in one line."""
    lines = ["{"]
    for key, value in plan.items():
        if key != "tables":
            lines.append(f" {json.dumps(key)}: {json.dumps(value)},")
    lines.append(' "tables": {')
    for number, (name, row) in enumerate(plan["tables"].items()):
        lines.append(f"  {json.dumps(name)}: {{")
        fields = []
        for key, value in row.items():
            if key in ("shards", "tried") and value:
                inside = ",\n".join(f"    {json.dumps(one)}" for one in value)
                fields.append(f"   {json.dumps(key)}: [\n{inside}\n   ]")
            else:
                fields.append(f"   {json.dumps(key)}: {json.dumps(value)}")
        lines.append(",\n".join(fields))
        lines.append("  }" + ("," if number + 1 < len(plan["tables"]) else ""))
    lines += [" }", "}"]
    return "\n".join(lines) + "\n"


def read_plan(path: str, asked_by: str = "") -> dict[str, Any]:
    """Reads and checks a plan file.

    Raises:
        UserError: no such file, not JSON, another version, a shard that is not where it should be; names the table.
    """
    try:
        kept = parse_json(read_bounded(path, MAX_BYTES, "plan", f"{asked_by} {path}".strip()))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    check_plan(kept, path)
    return dict(kept)


def precision_of(plan: Mapping[str, Any]) -> Any:
    """In which looked-up embeddings and their gradients travel; older plans do not say."""
    return plan.get("comm_precision", "fp32")


def check_plan(kept: Any, where: str) -> Cluster:
    """Checks a plan by itself, without a model.

    Returns:
        The cluster that it was made for.

    Raises:
        UserError: names the table and what is wrong.
    """
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise UserError(f"{where}: not a dmoe plan (its format is not '{FORMAT}'); make one with dmoe plan make")
    if kept.get("version") != VERSION:
        raise UserError(f"{where}: plan version {kept.get('version')!r}, this dmoe reads version {VERSION}; make it again with dmoe plan")
    for key, kind in (("model", dict), ("cluster", dict), ("hashes", dict), ("batch_size", int), ("optimizer", str), ("tables", dict)):
        if not isinstance(kept.get(key), kind):
            raise UserError(f"{where}: {key}: expected {kind.__name__}, found {type(kept.get(key)).__name__}; plan again")
    cluster = cluster_from_json(kept["cluster"], where)
    if kept.get("world_size") != cluster.ranks:
        raise UserError(
            f"{where}: world_size is {str(kept.get('world_size'))[:40]}, but {cluster.name} has {cluster.ranks} ranks; plan again"
        )
    if not 1 <= kept["batch_size"] <= MAX_ROWS:
        raise UserError(f"{where}: batch_size is {str(kept['batch_size'])[:40]}, expected the global batch's rows; plan again")
    if precision_of(kept) not in tuple(BYTES):
        raise UserError(f"{where}: comm_precision is {str(precision_of(kept))[:40]!r}, expected one of {', '.join(BYTES)}; plan again")
    for name, row in kept["tables"].items():
        try:
            check_text(name)
            _check_table(row, cluster)
        except (KeyError, TypeError) as error:
            raise UserError(f"{where}: table {quoted(name)}: its entry is damaged ({error!r}); plan again") from None
        except ValueError as error:
            raise UserError(f"{where}: table {quoted(name)}: {error}") from None
    return cluster


def _check_table(row: Mapping[str, Any], cluster: Cluster) -> None:
    rows, columns = row["size"]
    if not whole(rows, "size") or not whole(columns, "size", MAX_COLUMNS):
        raise ValueError(f"size is {rows} x {columns}, a table has rows and columns")
    for key, known in (("sharding_type", TYPES), ("compute_kernel", KERNELS)):
        if row[key] not in known:
            raise ValueError(f"{key} is {str(row[key])[:40]!r}, expected one of {', '.join(known)}")
    for key in ("pooling_factor", "batch_size"):
        if isinstance(row[key], bool) or not 0 < row[key] <= MAX_ROWS:
            raise ValueError(f"{key} is {str(row[key])[:40]}, expected more than 0")
    replicated = row["sharding_type"] == "data_parallel"
    if replicated != (row["shards"] is None) or replicated != (row["compute_kernel"] == "dense"):
        raise ValueError("data_parallel tables have kernel dense and shards null, and no others do")
    if cluster.device.kind == "cpu" and row["compute_kernel"].startswith("fused_uvm"):
        raise ValueError(f"kernel {row['compute_kernel']} keeps rows in the host's memory beside a GPU, and {cluster.name} has none")
    if not replicated:
        check_cuts(row, cluster)
