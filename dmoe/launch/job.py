"""Makes a torchx AppDef of a program and a place to run: one role with a replica for each node, each with torchrun (`dmoe.torchrun`).

torchx's own `dist.ddp` is similar, but has no folder for logs, no time-outs of the rendezvous, no network interface, and no values with a
comma.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torchx.specs as specs
from torchx.specs import macros

from dmoe.errors import UserError, one_line
from dmoe.launch.environment import is_plain, join, parse_env, quote
from dmoe.launch.resources import Ranks, parse_ranks, resource

INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


@dataclass(frozen=True)
class Place:
    """Where and how a job runs. The arguments that all components share."""

    name: str
    image: str
    j: str = "1x1"
    cpu: int = 2
    gpu: int = 0
    memory_mb: int = 4096
    h: str | None = None
    env: str = ""
    mounts: str = ""
    max_retries: int = 0
    rdzv_port: int = 29500
    rdzv_timeout: int = 900
    interface: str = ""
    venv: str = ""

    @property
    def resource(self) -> specs.Resource:
        return resource(self.h, self.cpu, self.gpu, self.memory_mb)

    @property
    def ranks(self) -> Ranks:
        return parse_ranks(self.j, self.resource)

    def sees(self, elsewhere: bool) -> Callable[[str], bool]:
        """Tells whether this machine sees a path as the job will: not if all is `elsewhere`, nor remote paths and those in mounts."""
        mounted = [str(mount.dst_path) for mount in self.parsed_mounts()]
        return lambda path: not elsewhere and "://" not in path and not any(Path(path).is_relative_to(folder) for folder in mounted)

    def parsed_mounts(self) -> list[specs.BindMount | specs.VolumeMount | specs.DeviceMount]:
        try:
            # torchx's list type would strip the spaces at the ends of a path.
            return list(specs.parse_mounts(self.mounts.split(",") if self.mounts else []))
        except (KeyError, ValueError) as error:
            wrong = error.args[0] if error.args else error
            raise UserError(f"--mounts {one_line(self.mounts)}: {wrong}; expected type=bind,src=/on/the/node,dst=/in/the/job") from None


def distributed_job(place: Place, module: str, arguments: list[str], logs: str) -> specs.AppDef:
    """Runs a module on every rank.

    Args:
        place: where it runs.
        module: run with `python -m`.
        arguments: of the module.
        logs: folder that all nodes see, for the output of each rank: `logs/node-N/<job>_<random>/attempt_0/<local rank>/std{out,err}.log`.
            If empty, the output stays in the temporary folder of the node.
    """
    ranks = place.ranks
    meet = _first_node(place) if ranks.nodes > 1 else "localhost:0"
    command = ["python", "-m", "dmoe.torchrun", "--rdzv-backend", "dmoe", "--rdzv-endpoint", meet, "--rdzv-id", macros.app_id]
    command += ["--rdzv-conf", f"join_timeout={place.rdzv_timeout},read_timeout={place.rdzv_timeout}"]
    command += ["--nnodes", str(ranks.nodes), "--nproc-per-node", str(ranks.per_node), "--tee", "3"]
    command += ["--role", f"node{macros.replica_id}-"]
    if logs:
        command += ["--log-dir", f"{quote(logs)}/node-{macros.replica_id}"]
    threads = max(place.resource.cpu // ranks.per_node, 1)
    env = {"OMP_NUM_THREADS": str(threads), "LOGLEVEL": "WARNING"}
    env |= {variable: place.interface for variable in INTERFACE_VARIABLES if place.interface}
    # Not quoted up to the module, so that the shell expands the scheduler's variables. `--` is needed, since torchrun would take the
    # program's --run as its own option.
    line = " ".join([*command, "-m", "--", module, join(arguments)])
    return _app(place, module.rpartition(".")[2], ranks.nodes, line, env)


def single_job(place: Place, role: str, command: list[str]) -> specs.AppDef:
    """Runs one process on one node."""
    if place.ranks.total != 1:
        raise UserError(f"--j {place.j}: {role} is one process on one node; it uses the node's cores by itself")
    return _app(place, role, 1, join(command), {})


def ray_job(place: Place, role: str, command: list[str], token: str) -> specs.AppDef:
    """Starts a Ray cluster of all nodes, runs `command` on the first node with `--ray-address`, and stops the cluster.

    Args:
        token: file for the token of the cluster, on a disk that all nodes see.
    """
    nodes = place.ranks.nodes
    if place.ranks.per_node != 1:
        raise UserError(f"--j {place.j}: {role} is one process of a node, such as {nodes}x1; it uses the node's cores by itself")
    start = ["python", "-m", "dmoe.ray_nodes", "--nodes", str(nodes), "--node", macros.replica_id, "--head", _first_node(place)]
    start += ["--token", quote(token)]
    start += ["--cpus", str(place.resource.cpu), "--join-timeout", str(place.rdzv_timeout)]
    start += ["--interface", quote(place.interface)] * bool(place.interface)
    return _app(place, role, nodes, f"{' '.join(start)} -- {join(command)}", {})


def _first_node(place: Place) -> str:
    """Host and port of the first node. The scheduler sets a variable with the host; on AWS Batch it is not set on the first node itself."""
    return f"$${{{macros.rank0_env}:=localhost}}:{place.rdzv_port}"


def _app(place: Place, role: str, nodes: int, line: str, defaults: dict[str, str]) -> specs.AppDef:
    env = {**defaults, **parse_env(place.env)}
    # The shell of the job sets values that would be changed on the way, and PATH, to which local_cwd adds folders.
    by_shell = {key: value for key, value in env.items() if key == "PATH" or not is_plain(value)}
    setting = [f"export {key}={quote(value)};" for key, value in by_shell.items()]
    if place.venv:
        setting.append(f'export PATH={quote(place.venv)}/bin:"$$PATH";')
    made = specs.Role(
        name=role,
        image=place.image,
        entrypoint="bash",
        args=["-c", " ".join([*setting, line])],
        env={key: value for key, value in env.items() if key not in by_shell},
        num_replicas=nodes,
        min_replicas=nodes,
        resource=place.resource,
        port_map={"c10d": place.rdzv_port} if nodes > 1 else {},
        max_retries=place.max_retries,
        mounts=place.parsed_mounts(),
    )
    return specs.AppDef(name=place.name, roles=[made])
