"""`python -m dmoe.accept` and `torchrun -m dmoe.accept`: the command `dmoe accept`."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="dmoe.accept", path=["accept"]))
