"""The command `dmoe checkpoint`, from a checkout."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="tools/checkpoint.py", path=["checkpoint"]))
