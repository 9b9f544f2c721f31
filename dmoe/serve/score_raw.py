"""Raw logs for scoring: read as the training data was read, by the vocabulary that it keeps."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError


@contextmanager
def made_from(log: list[str] | None, vocabulary: str | None, max_bad_share: float) -> Iterator[str | None]:
    """A data set of the log's rows, in their order, in a folder that goes at the end; its split is `score`. None where `log` is.

    Malformed lines have no score. They are counted on stderr; above `max_bad_share` they end the run.

    Raises:
        UserError: no vocabulary, or a log that is not what the vocabulary's data set was made of.
    """
    if log is None:
        if vocabulary:
            raise UserError("--vocabulary: goes with --log; a data set has its ids already")
        yield None
        return
    if not vocabulary:
        raise UserError("--log: give the data set that the model was trained on as --vocabulary")
    with tempfile.TemporaryDirectory(prefix="dmoe-score-") as folder:
        result = preprocess(Options(log, folder, vocabulary=vocabulary, scoring=True, max_bad_share=max_bad_share))
        if bad := sum(result.bad_lines.values()):
            print(f"{bad:,} malformed line{'s' * (bad != 1)} of {result.lines:,} left out", file=sys.stderr)
        yield folder
