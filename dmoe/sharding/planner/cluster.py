"""The cluster that a plan is made for: the one that the process group runs on, or any other one by its description.

Bandwidths are in bytes per second, for one device and one direction, from the vendor's data sheet. Capacities are in bytes.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dmoe.config.yaml_files import read_mapping
from dmoe.errors import UserError, nearest, one_line, shown

GIB, GB = 1 << 30, 1e9
MAX_RANKS = 8192
MAX_BYTES = 1e18
"""Limits for the capacity of a memory and for a bandwidth."""


@dataclass(frozen=True)
class Device:
    """One rank's hardware.

    Attributes:
        kind: `cuda` or `cpu`.
        hbm, ddr: capacity of device memory and host memory per rank.
        hbm_bandwidth, ddr_bandwidth: bandwidth of device memory and host memory.
        host_link: bandwidth between the two memories (PCIe, NVLink-C2C).
        node_link: bandwidth to a rank of the same node.
        network: bandwidth to a rank of another node; the share of one rank.
        flops: FLOPs per second (a multiply-add counts as 2) that dense layers reach in practice, about 35 % of the data sheet's bf16.
        usd_an_hour: typical on-demand price, used in sweeps; put your own price in a cluster file.
    """

    name: str
    kind: str
    hbm: float
    ddr: float
    hbm_bandwidth: float
    ddr_bandwidth: float
    host_link: float
    node_link: float
    network: float
    flops: float
    usd_an_hour: float


def _gpu(name: str, hbm: float, memory: float, link: float, network: float, host: float, tflops: float, usd: float) -> Device:
    return Device(name, "cuda", hbm * GIB, 256 * GIB, memory * GB, 51 * GIB, host * GB, link * GB, network * GB, tflops * 0.35e12, usd)


PRESETS = {
    device.name: device
    for device in (
        _gpu("a100-40", 40, 1555, 300, 25, 25, 312, 1.5),
        _gpu("a100-80", 80, 2039, 300, 25, 25, 312, 2.0),
        _gpu("h100", 80, 3350, 450, 50, 55, 989, 3.0),
        _gpu("h200", 141, 4800, 450, 50, 55, 989, 3.8),
        _gpu("b200", 180, 8000, 900, 50, 55, 2250, 5.5),
        Device("cpu", "cpu", 0, 128 * GIB, 897 * GIB, 51 * GIB, 32 * GIB, 5 * GB, 1.25 * GB, 0.1e12, 0.1),
    )
}
FORM = f"NODESxRANKS:DEVICE such as 16x8:h100, with one of {', '.join(PRESETS)} or a YAML file of your own"


@dataclass(frozen=True)
class Cluster:
    """`nodes` hosts of `ranks_a_node` devices. Ranks are numbered host by host.

    Attributes:
        memory_of: (rank, bytes) of ranks whose `memory` differs from the device's, for example on a node shared with other jobs.
        without: ranks of the job that hold no table; they take part in lookups and exchange like all others.
    """

    nodes: int
    ranks_a_node: int
    device: Device
    memory_of: tuple[tuple[int, float], ...] = ()
    without: tuple[int, ...] = ()

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_a_node

    @property
    def name(self) -> str:
        return f"{self.nodes}x{self.ranks_a_node}:{self.device.name}"

    @property
    def memory(self) -> float:
        """Bytes of the memory that holds tables by default (HBM on GPUs)."""
        return self.device.hbm if self.device.kind == "cuda" else self.device.ddr

    def memory_on(self, rank: int) -> float:
        """`memory` of one rank."""
        return dict(self.memory_of).get(rank, self.memory)

    def equal(self) -> "Cluster":
        """The same cluster with equal ranks that may all hold tables."""
        return dataclasses.replace(self, memory_of=(), without=())

    def as_json(self) -> dict[str, Any]:
        kept = dataclasses.asdict(self.equal())
        del kept["memory_of"], kept["without"]
        if self.memory_of:
            kept["memory_of"] = {str(rank): size for rank, size in self.memory_of}
        if self.without:
            kept["without"] = list(self.without)
        return kept

    def differences(self, other: "Cluster") -> list[str]:
        """The differences between the clusters that make a plan for one invalid on the other."""
        pairs = {
            "nodes": (self.nodes, other.nodes),
            "ranks a node": (self.ranks_a_node, other.ranks_a_node),
            "device": (self.device.kind, other.device.kind),
        }
        return [f"{what} {mine} there, {theirs} here" for what, (mine, theirs) in pairs.items() if mine != theirs]


def cluster_from_json(kept: Any, where: str) -> Cluster:
    """Reads the output of `as_json`.

    Raises:
        UserError: a field is missing, unknown, or not a positive number.
    """
    try:
        device = Device(**kept["device"])
        cluster = Cluster(kept["nodes"], kept["ranks_a_node"], device, *_ranks_of(kept, where))
    except (KeyError, TypeError) as error:
        raise UserError(f"{where}: the cluster's entry is damaged ({one_line(str(error))}); plan again") from None
    _check(cluster, where)
    return cluster


def parse_cluster(text: str) -> Cluster:
    """Parses `16x8:h100`, or `16x8:my_gpu.yaml`. The file overrides fields of a preset Device (`base: h100`), and may say which ranks have
    other memory (`memory_of: {3: 40e9}`) and which hold no table (`without: [7]`).

    Raises:
        UserError: another format, an unknown device, an impossible number.
    """
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9}):(.+)", text.strip())
    if not found:
        raise UserError(f"--cluster {text}: expected {FORM}")
    nodes, ranks_a_node, name = int(found[1]), int(found[2]), found[3]
    device, unequal = PRESETS.get(name.lower()), _ranks_of({}, "")
    if device is None:
        if not name.endswith((".yaml", ".yml", ".json")):
            raise UserError(f"--cluster {text}: unknown device '{name}'{nearest(name.lower(), PRESETS)}; expected {FORM}")
        device, unequal = _read_device(name)
    cluster = Cluster(nodes, ranks_a_node, device, *unequal)
    _check(cluster, f"--cluster {text}")
    return cluster


Unequal = tuple[tuple[tuple[int, float], ...], tuple[int, ...]]


def _ranks_of(tree: Mapping[str, Any], where: str) -> Unequal:
    """`memory_of` and `without` from a cluster file, sorted."""
    sizes, without = tree.get("memory_of", {}), tree.get("without", [])
    if not isinstance(sizes, dict) or not all(re.fullmatch(r"\d{1,6}", str(rank)) for rank in sizes):
        raise UserError(f"{where}: memory_of: expected bytes by rank, such as {{3: 40e9}}")
    if not isinstance(without, list) or not all(type(rank) is int for rank in without):
        raise UserError(f"{where}: without: expected a list of ranks, such as [7]")
    return tuple(sorted((int(rank), size) for rank, size in sizes.items())), tuple(sorted(set(without)))


def _read_device(path: str) -> tuple[Device, Unequal]:
    tree = read_mapping(path, f"--cluster {path}", "device's file", "keys such as 'base: h100' and 'network: 25e9'")
    if not tree:
        raise UserError(f"{path}: empty; expected keys such as 'base: h100'")
    known = [field.name for field in dataclasses.fields(Device)]
    unequal = _ranks_of(tree, path)
    tree = {key: value for key, value in tree.items() if key not in ("memory_of", "without")}
    base = PRESETS.get(str(tree.pop("base", "h100")).lower())
    if base is None:
        raise UserError(f"{path}: base: expected one of {', '.join(PRESETS)}")
    for key in tree:
        if key not in known:
            raise UserError(f"{path}: {one_line(key)}: unknown key{nearest(key, [*known, 'memory_of', 'without'])}")
    return dataclasses.replace(base, **({"name": f"{base.name}*"} | tree)), unequal


def _check(cluster: Cluster, where: str) -> None:
    for what in ("nodes", "ranks_a_node"):
        if type(getattr(cluster, what)) is not int or getattr(cluster, what) < 1:
            raise UserError(f"{where}: {what} is {shown(getattr(cluster, what))}, expected at least 1")
    if cluster.ranks > MAX_RANKS:
        raise UserError(f"{where}: {cluster.ranks:,} ranks, more than {MAX_RANKS:,}")
    if not isinstance(cluster.device.name, str):
        raise UserError(f"{where}: name is {shown(cluster.device.name)}, expected text")
    if cluster.device.kind not in ("cuda", "cpu"):
        raise UserError(f"{where}: kind is {shown(cluster.device.kind)}, expected cuda or cpu")
    for field in dataclasses.fields(Device)[2:]:
        value = getattr(cluster.device, field.name)
        least = 0.0 if field.name in ("hbm", "usd_an_hour") else 1.0
        if type(value) not in (int, float) or not least <= value <= MAX_BYTES:
            raise UserError(f"{where}: {field.name} is {shown(value)}, expected a positive number, in bytes or bytes a second")
    if cluster.device.kind == "cuda" and cluster.device.hbm < GIB:
        raise UserError(f"{where}: hbm is {cluster.device.hbm!r}, expected bytes, a GiB at least")
    _check_ranks(cluster, where)


def _check_ranks(cluster: Cluster, where: str) -> None:
    named = [("memory_of", [rank for rank, _ in cluster.memory_of]), ("without", list(cluster.without))]
    for what, ranks in named:
        if wrong := [rank for rank in ranks if not 0 <= rank < cluster.ranks]:
            raise UserError(f"{where}: {what}: rank {wrong[0]}, but {cluster.name} has ranks 0 to {cluster.ranks - 1}")
    least = GIB if cluster.device.kind == "cuda" else 1
    for rank, size in cluster.memory_of:
        if type(size) not in (int, float) or not least <= size <= MAX_BYTES:
            raise UserError(f"{where}: memory_of: rank {rank} has {shown(size)}, expected bytes, such as 40e9")
    if len(cluster.without) == cluster.ranks:
        raise UserError(f"{where}: without: it names all {cluster.ranks} ranks; one at least has to hold the tables")


def topology_of(cluster: Cluster) -> Any:
    """The cluster as a TorchRec topology, whose bandwidths are in bytes per millisecond."""
    from torchrec.distributed.planner.types import HardwareConfig, KernelConfig, TopologyFactory, TrainerConfig

    device = cluster.device
    return TopologyFactory.create_topology(
        TrainerConfig(world_size=cluster.ranks, local_world_size=cluster.ranks_a_node),
        HardwareConfig(
            hbm_cap_bytes=int(device.hbm) if device.kind == "cuda" else None,
            ddr_cap_bytes=int(device.ddr),
            intra_host_bw=device.node_link / 1000,
            inter_host_bw=min(device.network, device.node_link) / 1000,
            hbm_mem_bw=device.hbm_bandwidth / 1000,
            ddr_mem_bw=device.ddr_bandwidth / 1000,
            hbm_to_ddr_mem_bw=device.host_link / 1000,
        ),
        KernelConfig(compute_device=device.kind, use_hardware_based_bandwidth=True),
    )


def cluster_of_this_job(device_type: str) -> Cluster:
    """The cluster that the process group runs on: its shape from the launcher's environment variables, the device by its name."""
    from dmoe.distributed import local_world_size, world_size

    ranks, local = world_size(), min(local_world_size(), world_size())
    local = local if ranks % local == 0 else 1
    if device_type != "cuda":
        return Cluster(ranks // local, local, PRESETS["cpu"])
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    name = properties.name.lower()
    base = next((key for key in ("h200", "h100", "b200") if key in name), "a100-40" if properties.total_memory < 50 * GIB else "a100-80")
    # Use the actual memory, not the data sheet's: a plan must fit it.
    return Cluster(ranks // local, local, dataclasses.replace(PRESETS[base], hbm=min(PRESETS[base].hbm, properties.total_memory)))
