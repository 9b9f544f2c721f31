"""Several hosts on this machine: network namespaces, each with a host name, a hosts file and one link to a common switch.

The switch is a bridge in a namespace of its own, so that nothing of the machine's network is touched. Needs root and iproute2.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.endtoend.needs import found, missing

NETNS_ETC = Path("/etc/netns")
"""`ip netns exec NAME` lays the files of /etc/netns/NAME over those of /etc."""


def why_not() -> str | None:
    """What keeps namespaces from being made here; None where nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if lacking := missing("ip", "unshare"):
        return lacking
    name = f"dmoe-{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", "bridge0", "type", "bridge")
            _ip("-n", name, "link", "add", "one", "type", "veth", "peer", "name", "other")
            _ip("netns", "exec", name, "unshare", "--uts", "hostname", "try")
        finally:
            _ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted: {' '.join(error.cmd[1:])}: {error.stderr.strip()}"
    return None


def _ip(*arguments: str) -> None:
    subprocess.run([found("ip") or "ip", *arguments], check=True, capture_output=True, text=True)


class Hosts:
    """Hosts `host-0`, `host-1`, ... at 10.77.0.1, 10.77.0.2, ..., joined by `eth0`.

    A host's own name is 127.0.1.1 to itself, as Debian's installer writes it: whoever listens at their own name's address is not found
    by the others, and has to be told the interface.
    """

    def __init__(self, count: int) -> None:
        self.names = [f"host-{number}" for number in range(count)]
        self.prefix = f"dmoe-{os.getpid()}-"
        self.switch = f"{self.prefix}switch"

    def start(self) -> None:
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "bridge0", "up")
        addresses = {name: f"10.77.0.{number + 1}" for number, name in enumerate(self.names)}
        for name in self.names:
            space = self.prefix + name
            etc = NETNS_ETC / space
            etc.mkdir(parents=True)
            others = [f"{address} {other}" for other, address in addresses.items() if other != name]
            (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", f"127.0.1.1 {name}", *others, ""]))
            _ip("netns", "add", space)
            _ip("-n", self.switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", self.switch, "link", "set", name, "master", "bridge0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "address", "add", f"{addresses[name]}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")

    def stop(self) -> None:
        for name in self.names:
            self._end(name)
        for space in [*(self.prefix + name for name in self.names), self.switch]:
            shutil.rmtree(NETNS_ETC / space, ignore_errors=True)
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", space)
        with contextlib.suppress(OSError):
            NETNS_ETC.rmdir()

    def popen(self, name: str, command: list[str], **options: object) -> subprocess.Popen[str]:
        """Starts a program on a host."""
        entered = [found("ip") or "ip", "netns", "exec", self.prefix + name, "unshare", "--uts"]
        line = [*entered, "sh", "-c", 'hostname "$0" && exec "$@"', name, *command]
        return subprocess.Popen(line, text=True, **options)  # type: ignore[call-overload,no-any-return]

    def cut(self, name: str) -> None:
        """Pulls the host's cable out of the switch: the host stays up, its packets go nowhere, nobody is told."""
        _ip("-n", self.switch, "link", "set", name, "down")

    def join(self, name: str) -> None:
        _ip("-n", self.switch, "link", "set", name, "up")

    def _end(self, name: str) -> None:
        """Ends all that runs on the host, as a power cut would."""
        listed = subprocess.run([found("ip") or "ip", "netns", "pids", self.prefix + name], capture_output=True, text=True, check=False)
        for process in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)


@contextlib.contextmanager
def running(count: int) -> Iterator[Hosts]:
    hosts = Hosts(count)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()
