"""Check that this machine can run dmoe, and name the command that repairs what is wrong."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(_: argparse.Namespace) -> int:
    from dmoe.doctor import findings

    bad = 0
    for finding in findings():
        print(f"{'ok  ' if finding.sound else 'FAIL'}  {finding.check:<15} {finding.found}", flush=True)
        if not finding.sound:
            bad += 1
            print(f"      to repair it:   {finding.mend}", flush=True)
    print("all is well" if not bad else f"{bad} check(s) failed")
    return 1 if bad else 0
