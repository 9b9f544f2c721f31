"""What a test needs of the machine: programs of the system, and a loud word where it cannot run."""

import os
import shutil
import warnings

import pytest


def found(program: str) -> str | None:
    """Its path, also where an ordinary user's PATH does not lead to it."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def missing(*programs: str) -> str | None:
    """What to say where some are not installed."""
    lacking = [program for program in programs if not found(program)]
    return f"no {', '.join(lacking)}: run .ci/install_slurm.sh" if lacking else None


def or_skip(what: str, problem: str | None) -> pytest.MarkDecorator:
    """A mark that skips where there is a problem, loudly: a machine that is meant to run the test must not pass for having run it."""
    reason = f"NO {what} HERE: {problem}"
    if problem:
        warnings.warn(reason, stacklevel=2)
    return pytest.mark.skipif(problem is not None, reason=reason)
