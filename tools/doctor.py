"""The command `dmoe doctor`, from a checkout."""

import sys

try:
    from dmoe.cli.main import main
except ModuleNotFoundError:
    print("tools/doctor.py: dmoe is not installed in this Python; run `make venv`, then .venv/bin/python tools/doctor.py", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(main(program="tools/doctor.py", path=["doctor"]))
