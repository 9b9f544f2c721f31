"""The plan file: versioned JSON that can be read and edited by hand; it is checked each time it is read."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from dmoe.config.config import Config
from dmoe.config.sections import KernelName, OptimizerName, Precision, ShardingTypeName
from dmoe.config.strict import Open, checked
from dmoe.errors import UserError
from dmoe.json_text import format_json
from dmoe.model.embedding.tables import Table
from dmoe.names import check_text, quoted
from dmoe.sharding.plan.shard_layout import MAX_COLUMNS, MAX_ROWS, check_cuts
from dmoe.sharding.planner.cluster import Cluster, cluster_from_json
from dmoe.storage.documents import check_format, read_document
from dmoe.storage.paths import write_output

FORMAT, VERSION = "dmoe-plan", 2
MAX_BYTES = 256 << 20
AGAIN = "make one with dmoe plan make"

Count = Annotated[int, Field(ge=0, le=MAX_ROWS)]
Number = Annotated[float, Field(ge=0, le=1e18)]


class _Shard(Open):
    row: Count
    column: Count
    rows: Count
    columns: Count
    rank: Count


class _Tried(Open):
    """A candidate that the planner tried for a table; `plan_ms` is null if it did not fit."""

    what: str
    shards: Count
    shard_ms: Number
    all_ms: Number
    bytes: Number
    plan_ms: Number | None
    chosen: bool


class _Lookup(Open):
    """How the table is looked up (dmoe.sharding.planner.cost.lookup); absent for the tables of dmoe's own models."""

    ids: list[Annotated[float, Field(gt=0, le=MAX_ROWS)]] = Field(min_length=1, max_length=10_000)
    pooled: bool
    weighted: bool
    data_type: Literal["FP32", "FP16"]


class _Use(Open):
    """Lookup statistics from the data set (dmoe.sharding.planner.cost.table_use); absent if there was no data set."""

    lookups: Number
    unique_ids: Number
    miss_rate: float = Field(ge=0, le=1)
    hot_rows: Count


class _Table(Open):
    size: tuple[Annotated[int, Field(ge=1, le=MAX_ROWS)], Annotated[int, Field(ge=1, le=MAX_COLUMNS)]] = Field(strict=False)
    sharding_type: ShardingTypeName
    compute_kernel: KernelName
    pooling_factor: float = Field(gt=0, le=MAX_ROWS)
    batch_size: int = Field(ge=1, le=MAX_ROWS)
    shards: list[_Shard] | None
    path: str | None = None
    parameter: str | None = None
    lookup: _Lookup | None = None
    use: _Use | None = None
    decided: str = ""
    tried: list[_Tried] | None = None


class _Model(Open):
    dense_bytes: Number = 0.0
    variant: str = ""


class _Room(Open):
    """Bytes for tables on a rank; `of`: rank -> bytes for ranks with other memory, in the memory that holds tables by default."""

    hbm: Number
    ddr: Number
    of: dict[Annotated[str, Field(pattern=r"^\d{1,6}$")], Annotated[float, Field(ge=-1e18, le=1e18)]] = Field({})


class _Predicted(Open):
    bound_ms: Number = 0.0


class _Plan(Open):
    """The fields of a plan file that are read."""

    world_size: Count
    batch_size: int = Field(ge=1, le=MAX_ROWS)
    optimizer: OptimizerName
    comm_precision: Precision = "fp32"
    model: _Model
    cluster: dict[str, Any]
    hashes: dict[str, str]
    room: _Room | None = None
    predicted: _Predicted | None = None
    tables: dict[str, _Table]


def hash_of(value: Any) -> str:
    """A hash of plain data, 16 hexadecimal digits."""
    return hashlib.sha256(format_json(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def model_hash(tables: Sequence[Table], optimizer: str) -> str:
    """A hash of the model properties that a plan depends on: names, sizes and sections of the tables, and their optimizer."""
    shape = [[table.name, table.rows, [[section.offset, section.dim] for section in table.sections]] for table in tables]
    return hash_of([shape, optimizer])


def constraints_hash(config: Config) -> str:
    return hash_of(config.sharding.model_dump(mode="json", exclude={"plan", "comm_precision"}))


def write_plan(path: str, plan: Mapping[str, Any]) -> None:
    """Writes a plan, one line per shard."""
    with write_output(path) as file:
        file.write(as_text(plan).encode())


def as_text(plan: Mapping[str, Any]) -> str:
    """The plan as JSON, indented by table, with each shard on one line for editing."""
    lines = ["{"]
    for key, value in plan.items():
        if key != "tables":
            lines.append(f" {format_json(key)}: {format_json(value)},")
    lines.append(' "tables": {')
    for number, (name, row) in enumerate(plan["tables"].items()):
        lines.append(f"  {format_json(name)}: {{")
        fields = []
        for key, value in row.items():
            if key in ("shards", "tried") and value:
                inside = ",\n".join(f"    {format_json(one)}" for one in value)
                fields.append(f"   {format_json(key)}: [\n{inside}\n   ]")
            else:
                fields.append(f"   {format_json(key)}: {format_json(value)}")
        lines.append(",\n".join(fields))
        lines.append("  }" + ("," if number + 1 < len(plan["tables"]) else ""))
    lines += [" }", "}"]
    return "\n".join(lines) + "\n"


def read_plan(path: str, asked_by: str = "") -> dict[str, Any]:
    """Reads and checks a plan file.

    Raises:
        UserError: the file does not exist, is not JSON, has another version, or has a shard at an invalid place; names the table.
    """
    kept = read_document(path, MAX_BYTES, "plan", FORMAT, VERSION, AGAIN, f"{asked_by} {path}".strip())
    check_plan(kept, path)
    return kept


def room_on(plan: Mapping[str, Any], cluster: Cluster) -> list[float]:
    """Bytes for tables on each rank, in the memory that holds tables by default."""
    room = plan["room"]
    equal = float(room["hbm" if cluster.device.kind == "cuda" else "ddr"])
    return [float(room.get("of", {}).get(str(rank), equal)) for rank in range(cluster.ranks)]


def precision_of(plan: Mapping[str, Any]) -> Any:
    """Precision in which embeddings and their gradients are sent; older plans have no such field."""
    return plan.get("comm_precision", "fp32")


def check_plan(kept: Any, where: str) -> Cluster:
    """Checks a plan without a model.

    Returns:
        The cluster that it was made for.

    Raises:
        UserError: names the table and what is wrong.
    """
    check_format(kept, where, "plan", FORMAT, VERSION, AGAIN)
    checked(_Plan.model_validate, kept, where, "; plan again")
    cluster = cluster_from_json(kept["cluster"], where)
    if kept["world_size"] != cluster.ranks:
        raise UserError(f"{where}: world_size is {kept['world_size']}, but {cluster.name} has {cluster.ranks} ranks; plan again")
    for name, row in kept["tables"].items():
        try:
            check_text(name)
            _check_table(row, cluster)
        except ValueError as error:
            raise UserError(f"{where}: table {quoted(name)}: {error}") from None
    return cluster


def _check_table(row: Mapping[str, Any], cluster: Cluster) -> None:
    replicated = row["sharding_type"] == "data_parallel"
    if replicated != (row["shards"] is None) or replicated != (row["compute_kernel"] == "dense"):
        raise ValueError("data_parallel tables have kernel dense and shards null, and no others do")
    if cluster.device.kind == "cpu" and row["compute_kernel"].startswith("fused_uvm"):
        raise ValueError(f"kernel {row['compute_kernel']} keeps rows in the host's memory beside a GPU, and {cluster.name} has none")
    if replicated and cluster.without:
        raise ValueError(f"data_parallel has the table on every rank, and {cluster.name} leaves out rank {cluster.without[0]}")
    if not replicated:
        check_cuts(row, cluster)
