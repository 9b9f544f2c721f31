"""The command `dmoe report`, from a checkout."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="tools/report.py", path=["report"]))
