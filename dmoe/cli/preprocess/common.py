"""Runs preprocessing with the options of a sub-command."""

import argparse
from typing import Any


def run(arguments: argparse.Namespace, **options: Any) -> None:
    # Not at the top: --help must not wait for numba and pyarrow.
    from dmoe.cli.options import given
    from dmoe.data.prepare.options import Options
    from dmoe.data.prepare.pipeline import preprocess
    from dmoe.data.prepare.summary import summarize
    from dmoe.malloc import keep_freed_memory
    from dmoe.names import show

    keep_freed_memory()
    show(summarize(preprocess(Options(**given(arguments, Options) | options)), arguments.output, arguments.vocabulary))
