"""Reads raw logs for scoring in the same way as the training data, with its vocabularies."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dmoe.data.prepare.bad_lines import TooManyBadLines
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.rejects import rejects_name
from dmoe.data.prepare.write.output_folder import REJECTS, move_rejects
from dmoe.errors import UserError
from dmoe.names import show
from dmoe.storage.paths import PATHS, join


@contextmanager
def made_from(log: list[str] | None, vocabulary: str | None, max_bad_share: float, rejects: str | None = None) -> Iterator[str | None]:
    """Makes a temporary data set of the log, with its rows in order in the split `score`. Yields its folder, or None if `log` is None.

    Malformed lines get no score. Their number is printed on stderr; a share above `max_bad_share` ends the run.

    Args:
        vocabulary: the data set that the model was trained on.
        rejects: folder for the malformed lines, in the format of preprocessing; files with the same names are replaced.

    Raises:
        UserError: `vocabulary` is missing, or the log has another format than the training log.
    """
    if log is None:
        if vocabulary or rejects:
            option, why = ("--vocabulary", "ids") if vocabulary else ("--rejects", "rejects")
            raise UserError(f"{option}: goes with --log; a data set has its {why} already")
        yield None
        return
    if not vocabulary:
        raise UserError("--log: give the data set that the model was trained on as --vocabulary")
    with tempfile.TemporaryDirectory(prefix="dmoe-score-") as folder:
        try:
            result = preprocess(Options(log, folder, vocabulary=vocabulary, scoring=True, max_bad_share=max_bad_share))
        except TooManyBadLines as error:
            if error.where and rejects:
                move_rejects(error.where, rejects)
                raise TooManyBadLines(error.found, rejects) from None
            raise UserError(error.found + "; --rejects F keeps the bad lines" * (not rejects)) from None
        if rejects:
            _clear(rejects, result.manifest.made_by["inputs"])
            move_rejects(os.path.join(folder, REJECTS), rejects)
        if bad := sum(result.bad_lines.values()):
            where = f"{rejects} has them with their line numbers" if rejects else "--rejects F keeps them with their line numbers"
            left = f"{bad:,} malformed line{'s' * (bad != 1)} of {result.lines:,} left out"
            show(f"warning: {left}, so that the rows of the output are not the lines of the log; {where}", sys.stderr)
        yield folder


def _clear(rejects: str, inputs: Any) -> None:
    """Removes the reject files of an earlier run for the inputs in the manifest, which may have no malformed lines any more."""
    for number, one in enumerate(inputs):
        if PATHS.exists(old := join(rejects, rejects_name(number, one["path"]))):
            PATHS.rm(old)
