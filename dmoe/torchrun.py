"""torchrun for dmoe's programs: `python -m dmoe.torchrun`, with torchrun's own arguments.

It ends in one line on Ctrl-C, and with its ranks also where the network has lost its host (`dmoe.processes.meeting`).
"""

import sys

from dmoe.errors import run_command


def main() -> int | None:
    from dmoe.processes.meeting import launch

    return launch()


if __name__ == "__main__":
    sys.exit(run_command("dmoe.torchrun", main))
