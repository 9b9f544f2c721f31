"""`python -m dmoe.train` and `torchrun -m dmoe.train`: the command `dmoe train`."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="dmoe.train", path=["train"]))
