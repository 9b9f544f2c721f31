"""A Ray cluster for one command: `python -m dmoe.ray_nodes --nodes 4 --node 0 --head HOST:6379 -- COMMAND`, on every node.

Node 0 starts the cluster's head and runs COMMAND with `--ray-address`, at once: the others join it as they come. When COMMAND ends, node 0
waits until each has been there, stops Ray and ends as COMMAND did; the others see the head gone, stop Ray and end with 0.

Who reaches a Ray cluster runs what they like on it, so it asks for a token, which node 0 makes and all read from a file that they share.
"""

import argparse
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from dmoe.data.prepare.engines.ray_engine import answers, import_ray, short_folder
from dmoe.errors import UserError, run_command

POLL_SECONDS = 1.0
GONE_AFTER = 5
"""Refused connections in a row, after which the head is gone."""
STOP_SECONDS = 30.0
TERMINATED = 143


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dmoe.ray_nodes", description="A Ray cluster that lasts as long as one command.")
    parser.add_argument("--nodes", type=int, required=True, metavar="N")
    parser.add_argument("--node", type=int, required=True, metavar="I", help="this one: 0 .. N-1")
    parser.add_argument("--head", required=True, metavar="HOST:PORT", help="of node 0, as the others know it")
    parser.add_argument("--token", required=True, metavar="FILE", help="for the cluster's secret, on a disk that all nodes see")
    parser.add_argument("--cpus", type=int, default=0, metavar="C", help="tasks at a time on this node (one a core)")
    parser.add_argument("--interface", default="", help="network interface between the nodes, where the host's name leads to another")
    parser.add_argument("--join-timeout", type=int, default=900, metavar="S", help="seconds that nodes wait for each other (900)")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="behind --; run on node 0")
    return parser


def main() -> int:
    arguments = make_parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)
    # Before Ray is imported, and for all that is started here.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": os.path.abspath(arguments.token)}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    host, _, port = arguments.head.rpartition(":")
    address = _address_of(arguments.interface) if arguments.interface else _routed(_address_towards(host))
    node = Node(address, arguments.cpus or os.cpu_count() or 1, time.monotonic() + arguments.join_timeout)
    if arguments.node == 0:
        return node.lead(port, arguments.nodes, arguments.command, arguments.token)
    node.follow(f"{_routed(socket.gethostbyname(host))}:{port}", arguments.token)
    return 0


def _stop(number: int, _: FrameType | None) -> None:
    """Ends by an exception, so that Ray is stopped."""
    raise SystemExit(TERMINATED)


@dataclass
class Node:
    """This node: its address, the tasks that it takes at a time, and until when it waits for the others (time.monotonic)."""

    address: str
    cpus: int
    until: float

    def lead(self, port: str, nodes: int, command: list[str], token: str) -> int:
        """Runs the command on a cluster that begins and ends here; returns its exit code."""
        head = f"{self.address}:{port}"
        os.makedirs(os.path.dirname(token) or ".", exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.remove(token)
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        try:
            with self._ray(["--head", "--port", port, "--include-dashboard=false"]) as started:
                while not answers(head):
                    if started.poll() is not None or time.monotonic() > self.until:
                        raise UserError(f"--head {head}: Ray does not start here; is the port taken? Give another one, or --interface")
                    time.sleep(POLL_SECONDS)
                ended = subprocess.run([*command, "--ray-address", head], check=False).returncode
                if not ended:
                    self._see_all(head, nodes)
                return ended if ended >= 0 else 128 - ended
        finally:
            os.remove(token)

    def follow(self, head: str, token: str) -> None:
        """Gives this node's cores to the cluster until its head is gone."""
        while not (os.path.exists(token) and answers(head)):
            self._check_time(head)
        while True:
            with self._ray(["--address", head]) as started:
                refused = 0
                while started.poll() is None and refused < GONE_AFTER:
                    time.sleep(POLL_SECONDS)
                    refused = 0 if answers(head) else refused + 1
            # Ray itself ends where the head is gone, and where it is not ready yet.
            if not answers(head):
                return
            self._check_time(head)

    def _check_time(self, head: str) -> None:
        if time.monotonic() > self.until:
            raise UserError(f"--head {head}: no Ray cluster to join there; look at what node 0 says, or give --interface")
        time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _ray(self, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Ray's processes of this node, stopped in the end."""
        folder = short_folder()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, "--node-ip-address", self.address]
        command += ["--num-cpus", str(self.cpus), "--temp-dir", folder, "--block"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            # Ray's own `--block` stops what it has started.
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(folder, ignore_errors=True)

    def _see_all(self, head: str, nodes: int) -> None:
        """Waits until every node has been there, or it is too late: one that came later would wait for a head that is gone."""
        ray = import_ray()
        ray.init(address=head, logging_level=logging.ERROR, log_to_driver=False)
        while len(ray.nodes()) < nodes and time.monotonic() < self.until:
            time.sleep(POLL_SECONDS)
        ray.shutdown()


def _address_of(interface: str) -> str:
    """The IPv4 address of a network interface (SIOCGIFADDR)."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            answer = fcntl.ioctl(asked, 0x8915, interface.encode()[:15].ljust(256, b"\0"))
        except OSError:
            raise UserError(f"--interface {interface}: {socket.gethostname()} has none of that name with an IPv4 address") from None
    return socket.inet_ntoa(answer[20:24])


def _address_towards(host: str) -> str:
    """The address of this node that packets to `host` come from; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((host, 9))
        return str(asked.getsockname()[0])


def _routed(address: str) -> str:
    """Ray takes this node's address in a network for the loopback one."""
    return str(import_ray().util.get_node_ip_address()) if address.startswith("127.") else address


if __name__ == "__main__":
    sys.exit(run_command("dmoe.ray_nodes", main))
