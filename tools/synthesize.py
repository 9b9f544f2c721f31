"""The command `dmoe synthesize`, from a checkout."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="tools/synthesize.py", path=["synthesize"]))
