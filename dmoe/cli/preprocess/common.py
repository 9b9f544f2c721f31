"""Runs preprocessing with the options of a sub-command."""

import argparse
import sys
from typing import Any

from dmoe.processes.alive import note


def run(arguments: argparse.Namespace, **options: Any) -> None:
    note("loads numba and Arrow")
    # Not at the top: --help must not wait for numba and pyarrow.
    from dmoe.cli.options import given
    from dmoe.data.prepare.options import Options
    from dmoe.data.prepare.pipeline import preprocess
    from dmoe.data.prepare.summary import summarize
    from dmoe.processes.hidden_modules import hidden
    from dmoe.processes.malloc import keep_freed_memory
    from dmoe.terminal import tell

    keep_freed_memory()
    # The progress of its stages tells from here on.
    note("")
    with hidden("pandas", "scipy"):
        result = preprocess(Options(**given(arguments, Options) | options))
    numbers = {
        "output": arguments.output,
        "rows": {name: split.rows for name, split in result.manifest.splits.items()},
        "lines": result.lines,
        "bad_lines": sum(result.bad_lines.values()),
        "bytes": result.size,
        "seconds": result.seconds,
    }
    tell(summarize(result, arguments.output, arguments.vocabulary), event="done", stream=sys.stdout, **numbers)
