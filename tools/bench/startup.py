"""The time that every command's `--help` takes: the median over fresh processes, wall-clock and CPU.

    python -m tools.bench.startup

Where the machine is busy only the second is worth much.
"""

import resource
import subprocess
import sys
import time
from statistics import median

from dmoe.cli.main import every_command
from tools.bench.results import ROOT, announce, loads, parser, verdict

LIMIT = 0.5


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3)
    repeats = options.parse_args().repeats
    announce()
    commands = [["-m", "dmoe", *words] for words in every_command()]
    within = sum([measure(command, repeats) for command in commands])
    print(f"{within} of {len(commands)} within {LIMIT} s of CPU: {verdict(within == len(commands))} (load {loads()})")


def measure(command: list[str], repeats: int) -> bool:
    """Prints what a command's help costs; whether it is within the limit."""
    walls, cpus, code = [], [], 0
    for _ in range(repeats):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        code = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True).returncode or code
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    within = median(cpus) < LIMIT and not code
    told = f"EXIT CODE {code}" if code else "" if within else "OVER THE LIMIT"
    print(f"  {' '.join(command):46} {median(walls):7.2f} s  cpu {median(cpus):7.2f} s  {told}".rstrip(), flush=True)
    return within


if __name__ == "__main__":
    main()
