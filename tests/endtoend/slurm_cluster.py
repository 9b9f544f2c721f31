"""A real Slurm cluster of two nodes on this machine: munged, mariadbd, slurmdbd, slurmctld and two slurmd, all on loopback.

    python -m tests.endtoend.slurm_cluster .slurm     starts one, says how to use it, and ends it on Ctrl-C

Needs root and what .ci/install_slurm.sh installs. Nothing of the machine's own Slurm, if there is one, is touched.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.endtoend.needs import found, missing
from tests.ports import free_ports

NODES = ("dmoe-n1", "dmoe-n2")
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct", "sacctmgr")
HOSTS = Path("/etc/hosts")
SLURM_CONF = """\
ClusterName=dmoe
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job may start again when its old credential has expired, after 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
# A heterogeneous job, which is what torchx makes of several nodes, is started by the backfill scheduler alone.
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
KillWait=30
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
NodeName=dmoe-n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=4 RealMemory=8000 State=UNKNOWN
NodeName=dmoe-n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=dmoe-n[1-2] Default=YES PriorityTier=1 State=UP
PartitionName=urgent Nodes=dmoe-n[1-2] PriorityTier=10 PreemptMode=OFF State=UP
"""
DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def why_not() -> str | None:
    """What keeps a cluster from starting here; None where nothing does."""
    if os.geteuid() != 0:
        return "a Slurm cluster needs root"
    return missing(*PROGRAMS)


class SlurmCluster:
    """The daemons, and what a client needs to reach them.

    Args:
        folder: for their state and logs; emptied first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.hosts_line = f"127.0.0.1 {' '.join(NODES)} # dmoe's test cluster in {self.folder}\n"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "SLURM_CONF": f"{self.folder}/slurm.conf", "SLURM_TIME_FORMAT": "standard"}

    def start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("state", "database", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        # munged and slurmdbd refuse files that others could write or read.
        os.chmod(self.folder, 0o755)
        ports = dict(zip(("ctld", "dbd", "database", "n1", "n2"), free_ports(5), strict=True))
        values = {"folder": self.folder, "host": socket.gethostname().partition(".")[0], **ports}
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        (self.folder / "slurmdbd.conf").write_text(DBD_CONF.format(**values))
        os.chmod(self.folder / "slurmdbd.conf", 0o600)
        # torchrun's nodes meet at a node's name, which has to resolve.
        HOSTS.write_text(HOSTS.read_text() + self.hosts_line)
        self._start_munge()
        self._start_database(ports["database"])
        self._run("slurmdbd", "slurmdbd", "-D")
        self._wait("slurmdbd", lambda: self.ok("sacctmgr", "-n", "list", "cluster"))
        self.client("sacctmgr", "-i", "add", "cluster", "dmoe")
        self._run("slurmctld", "slurmctld", "-D", "-c")
        self._wait("slurmctld", lambda: self.ok("scontrol", "ping"))
        for node in NODES:
            self.start_node(node)
        self._wait("the nodes", lambda: self.client("sinfo", "-h", "-N", "-p", "main", "-o", "%t").split() == ["idle"] * len(NODES))

    def stop(self) -> None:
        """Ends the jobs, then the daemons, the database last."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.client("scancel", "--signal=KILL", "--user=root")
            self._wait("the jobs' end", lambda: not self.client("squeue", "-h", "-t", "R,CG").strip(), 20)
        for name in reversed(list(self.daemons)):
            self._end(name)
        HOSTS.write_text(HOSTS.read_text().replace(self.hosts_line, ""))

    def start_node(self, node: str) -> None:
        self._run(node, "slurmd", "-D", "-N", node, "-c")

    def kill_node(self, node: str) -> None:
        """As a power cut: the daemon and all that runs below its job steps is gone at once, and nothing is told."""
        doomed = [self.daemons[node].pid, *_steps_of(node)]
        doomed += [child for parent in doomed for child in _below(parent)]
        for process in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.daemons.pop(node).wait()

    def client(self, *command: str, timeout: float = 240) -> str:
        """Runs one of Slurm's commands and returns what it prints."""
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True, timeout=timeout).stdout

    def ok(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True, check=False, timeout=240).returncode == 0

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        os.chmod(key, 0o400)
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        # --force: the folder may lie below one that others can write in, such as /tmp.
        self._run("munged", "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        self._wait("munged", lambda: (self.folder / "munge.socket").exists())

    def _start_database(self, port: int) -> None:
        where = f"--datadir={self.folder}/database"
        install = [found("mariadb-install-db") or "", "--no-defaults", where, "--user=root", "--skip-test-db"]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        address = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={self.folder}/database.socket"]
        self._run("mariadbd", "mariadbd", "--no-defaults", where, "--user=root", *address)
        self._wait("mariadbd", lambda: _answers(port))

    def _run(self, name: str, *command: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as output:
            program = [found(command[0]) or command[0], *command[1:]]
            # A session of its own: Ctrl-C at the terminal must not end the database before what writes to it.
            self.daemons[name] = subprocess.Popen(program, env=self.environment, stdout=output, stderr=output, start_new_session=True)

    def _wait(self, what: str, done: Callable[[], bool], seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while not done():
            ended = {name: daemon.poll() for name, daemon in self.daemons.items() if daemon.poll() is not None}
            if ended or time.monotonic() > until:
                logs = "".join(f"\n== {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in self.folder.glob("*.out"))
                raise RuntimeError(f"{what}: not up after {seconds:.0f} s (ended: {ended}){logs}")
            time.sleep(0.2)

    def _end(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _steps_of(node: str) -> list[int]:
    """slurmstepd's processes of a node; a step outlives its slurmd and shows the node's name in its environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            if command.startswith("slurmstepd") and any(
                f"SLURMD_NODENAME={node}".encode() in _environment(p) for p in _below(int(entry.name))
            ):
                found.append(int(entry.name))
    return found


def _environment(process: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return []


def _below(process: int) -> list[int]:
    """All descendants of a process."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parents.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    found, new = [], [process]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found += new
    return found


def main() -> None:
    if problem := why_not():
        sys.exit(f"slurm_cluster: {problem}")
    with running(Path(sys.argv[1] if len(sys.argv) > 1 else ".slurm")) as cluster:
        print(
            f"Two nodes are up: {', '.join(NODES)}. In another shell:\n\n    export SLURM_CONF={cluster.folder}/slurm.conf\n    sinfo",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def end(*_: object) -> None:
    """Once: a second SIGTERM must not cut `stop` short, and leave daemons behind."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    # Not blocked and waited for: the daemons would inherit the mask, and not end at a SIGTERM.
    signal.signal(signal.SIGTERM, end)
    main()
