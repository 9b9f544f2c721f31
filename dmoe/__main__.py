"""`python -m dmoe COMMAND`: the console script `dmoe`."""

import sys

from dmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
