"""The command `dmoe plan`, from a checkout."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="tools/plan.py", path=["plan"]))
