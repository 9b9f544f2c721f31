"""`python -m dmoe.online` and `torchrun -m dmoe.online`: the command `dmoe online`."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="dmoe.online", path=["online"]))
