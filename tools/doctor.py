"""Checks that this machine can run dmoe, and names the command that mends what is wrong."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dmoe.doctor import findings
from dmoe.errors import run_command


def main() -> int:
    argparse.ArgumentParser(prog="tools/doctor.py", description=__doc__).parse_args()
    bad = 0
    for finding in findings():
        print(f"{'ok  ' if finding.sound else 'FAIL'}  {finding.check:<15} {finding.found}", flush=True)
        if not finding.sound:
            bad += 1
            print(f"      to mend it:     {finding.mend}", flush=True)
    print("all is well" if not bad else f"{bad} check(s) failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(run_command("tools/doctor.py", main))
