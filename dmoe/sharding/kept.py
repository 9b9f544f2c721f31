"""The plan file: versioned JSON that a person can read and edit, checked whenever it is read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dmoe.config import Config
from dmoe.errors import UserError
from dmoe.model.tables import Table
from dmoe.paths import PATHS
from dmoe.sharding.cluster import Cluster, cluster_from_json

FORMAT, VERSION = "dmoe-plan", 2
MAX_BYTES = 256 << 20
TYPES = ("data_parallel", "table_wise", "column_wise", "row_wise", "table_row_wise", "table_column_wise", "grid_shard")
KERNELS = ("dense", "fused", "fused_uvm", "fused_uvm_caching")
SHARD = ("row", "column", "rows", "columns", "rank")


def hash_of(value: Any) -> str:
    """16 hexadecimal digits that identify plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def model_hash(tables: Sequence[Table], optimizer: str) -> str:
    """Of what a plan depends on: the tables' names, sizes and sections, and their optimiser."""
    shape = [[table.name, table.rows, [[section.offset, section.dim] for section in table.sections]] for table in tables]
    return hash_of([shape, optimizer])


def constraints_hash(config: Config) -> str:
    return hash_of(config.sharding.model_dump(mode="json", exclude={"plan"}))


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
    if not PATHS.exists(path):
        raise UserError(f"{asked_by}{': ' if asked_by else ''}no such file: {path}")
    with PATHS.open(path, "r") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no plan is")
    try:
        kept = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    check_plan(kept, path)
    return dict(kept)


def check_plan(kept: Any, where: str) -> Cluster:
    """Checks a plan by itself, without a model.

    Returns:
        The cluster that it was made for.

    Raises:
        UserError: names the table and what is wrong.
    """
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise UserError(f"{where}: not a dmoe plan (its format is not '{FORMAT}'); make one with tools/plan.py make")
    if kept.get("version") != VERSION:
        raise UserError(
            f"{where}: plan version {kept.get('version')!r}, this dmoe reads version {VERSION}; make it again with tools/plan.py"
        )
    for key, kind in (("model", dict), ("cluster", dict), ("hashes", dict), ("batch_size", int), ("optimizer", str), ("tables", dict)):
        if not isinstance(kept.get(key), kind):
            raise UserError(f"{where}: {key}: expected {kind.__name__}, found {type(kept.get(key)).__name__}; plan again")
    cluster = cluster_from_json(kept["cluster"], where)
    for name, row in kept["tables"].items():
        try:
            _check_table(row, cluster)
        except (KeyError, TypeError) as error:
            raise UserError(f"{where}: table '{name}': its entry is damaged ({error!r}); plan again") from None
        except ValueError as error:
            raise UserError(f"{where}: table '{name}': {error}") from None
    return cluster


def _check_table(row: Mapping[str, Any], cluster: Cluster) -> None:
    rows, columns = (_whole(value, "size") for value in row["size"])
    for key, known in (("sharding_type", TYPES), ("compute_kernel", KERNELS)):
        if row[key] not in known:
            raise ValueError(f"{key} is {row[key]!r}, expected one of {', '.join(known)}")
    if not row["pooling_factor"] > 0 or not row["batch_size"] > 0:
        raise ValueError("pooling_factor and batch_size: expected more than 0")
    replicated = row["sharding_type"] == "data_parallel"
    if replicated != (row["shards"] is None) or replicated != (row["compute_kernel"] == "dense"):
        raise ValueError("data_parallel tables have kernel dense and shards null, and no others do")
    area = 0
    corners = set()
    for number, shard in enumerate(row["shards"] or ()):
        row_, column, height, width, rank = (_whole(shard[key], f"shard {number}: {key}") for key in SHARD)
        if rank >= cluster.ranks:
            raise ValueError(f"shard {number} is on rank {rank}, but {cluster.name} has ranks 0 to {cluster.ranks - 1}")
        if row_ + height > rows or column + width > columns:
            raise ValueError(f"shard {number} reaches beyond the table's {rows} x {columns}")
        area += height * width
        if height:
            corners.add((row_, column))
    if row["shards"] is not None and (area != rows * columns or len(corners) != sum(shard["rows"] > 0 for shard in row["shards"])):
        raise ValueError(f"its shards cover {area:,} of {rows * columns:,} numbers, or some twice")
    _check_places(row, cluster)


def _check_places(row: Mapping[str, Any], cluster: Cluster) -> None:
    """What TorchRec takes for granted of each sharding type."""
    kind, ranks = row["sharding_type"], [shard["rank"] for shard in row["shards"] or ()]
    local = cluster.ranks_a_node
    if kind == "table_wise" and len(ranks) != 1:
        raise ValueError(f"table_wise has one shard, found {len(ranks)}")
    if kind == "row_wise" and ranks != list(range(cluster.ranks)):
        raise ValueError("row_wise has one shard on every rank, in their order")
    if kind == "table_column_wise" and len({rank // local for rank in ranks}) != 1:
        raise ValueError("table_column_wise has all shards on one host")
    if kind in ("table_row_wise", "grid_shard"):
        blocks = [ranks[start : start + local] for start in range(0, len(ranks), local)]
        if any(block != list(range(block[0] // local * local, block[0] // local * local + local)) for block in blocks):
            raise ValueError(f"{kind} has its shards on all ranks of a host, in their order")


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{what} is {value!r}, expected a whole number")
    return value
