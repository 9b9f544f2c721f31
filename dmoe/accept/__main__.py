"""`python -m dmoe.accept`: what torchrun starts; the same as `dmoe accept`."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="dmoe.accept", path=["accept"]))
