"""From a program and where it runs to torchx's AppDef: one role, a replica for each node, torchrun (`dmoe.torchrun`) in each.

torchx's own `dist.ddp` is close to this; it lacks the logs' folder, the rendezvous' time-outs, the interface, and values with a comma.
"""

from dataclasses import dataclass

import torchx.specs as specs
from torchx.specs import macros

from dmoe.errors import UserError, one_line
from dmoe.launch.environment import is_plain, join, parse_env, quote
from dmoe.launch.ranks import Ranks, parse_ranks
from dmoe.launch.resources import resource

INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


@dataclass(frozen=True)
class Place:
    """Where and how a job runs: the arguments that all components share."""

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

    @property
    def mounted(self) -> list[str]:
        """The container's folders that mounts fill."""
        return [str(mount.dst_path) for mount in self.parsed_mounts()]

    def parsed_mounts(self) -> list[specs.BindMount | specs.VolumeMount | specs.DeviceMount]:
        try:
            # torchx's own lists lose the spaces at the ends of a path.
            return list(specs.parse_mounts(self.mounts.split(",") if self.mounts else []))
        except (KeyError, ValueError) as error:
            wrong = error.args[0] if error.args else error
            raise UserError(f"--mounts {one_line(self.mounts)}: {wrong}; expected type=bind,src=/on/the/node,dst=/in/the/job") from None


def distributed_job(place: Place, module: str, arguments: list[str], logs: str) -> specs.AppDef:
    """A module on every rank.

    Args:
        place: where it runs.
        module: run with `python -m`.
        arguments: its own.
        logs: folder that every node sees, for each rank's output: `logs/node-N/<job>_<random>/attempt_0/<local rank>/std{out,err}.log`;
            "" keeps it on the node alone, in the temporary folder.
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
    # Unquoted up to the module: the shell is to fill in the scheduler's variables. Behind `--`, or torchrun would take the program's
    # --run for one of its own options.
    line = " ".join([*command, "-m", "--", module, join(arguments)])
    return _app(place, module.rpartition(".")[2], ranks.nodes, line, env)


def single_job(place: Place, role: str, command: list[str]) -> specs.AppDef:
    """One process on one node."""
    if place.ranks.total != 1:
        raise UserError(f"--j {place.j}: {role} is one process on one node; it uses the node's cores by itself")
    return _app(place, role, 1, join(command), {})


def array_job(place: Place, role: str, command: list[str], option: str) -> specs.AppDef:
    """One process on each node, told its share as `option I/N` where there are several.

    A node must not end before the others by more than a minute: torchx gives srun `--wait=60`, which would end the others then.
    """
    nodes = place.ranks.nodes
    _check_one_a_node(place, role)
    share = f" {option} {macros.replica_id}/{nodes}" if nodes > 1 else ""
    return _app(place, role, nodes, join(command) + share, {})


def ray_job(place: Place, role: str, command: list[str], token: str) -> specs.AppDef:
    """A Ray cluster of all nodes for as long as `command` runs, on the first; it takes `--ray-address`.

    Args:
        token: file for the cluster's secret, on a disk that all nodes see.
    """
    _check_one_a_node(place, role)
    nodes = place.ranks.nodes
    start = ["python", "-m", "dmoe.ray_nodes", "--nodes", str(nodes), "--node", macros.replica_id, "--head", _first_node(place)]
    start += ["--token", quote(token)]
    start += ["--cpus", str(place.resource.cpu), "--join-timeout", str(place.rdzv_timeout)]
    start += ["--interface", quote(place.interface)] * bool(place.interface)
    return _app(place, role, nodes, f"{' '.join(start)} -- {join(command)}", {})


def _first_node(place: Place) -> str:
    """Where several nodes meet: its host, which the scheduler puts in a variable; on AWS Batch the first node itself has none."""
    return f"$${{{macros.rank0_env}:=localhost}}:{place.rdzv_port}"


def _check_one_a_node(place: Place, role: str) -> None:
    if place.ranks.per_node != 1:
        raise UserError(
            f"--j {place.j}: {role} is one process of a node, such as {place.ranks.nodes}x1; it uses the node's cores by itself"
        )


def _app(place: Place, role: str, nodes: int, line: str, defaults: dict[str, str]) -> specs.AppDef:
    env = {**defaults, **parse_env(place.env)}
    # The job's shell sets what something on the way would change, and PATH, to which local_cwd adds folders.
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
