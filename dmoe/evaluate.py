"""`python -m dmoe.evaluate` and `torchrun -m -- dmoe.evaluate`: the command `dmoe evaluate`."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="dmoe.evaluate", path=["evaluate"]))
