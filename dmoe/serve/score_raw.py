"""Raw logs for scoring: read as the training data was read, by the vocabulary that it keeps."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.log.kept import load_kept
from dmoe.data.log.options import LogOptions
from dmoe.data.log.preprocess import preprocess_log
from dmoe.data.options import Options
from dmoe.data.preprocess import preprocess
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
    manifest = load_manifest(vocabulary)
    with tempfile.TemporaryDirectory(prefix="dmoe-score-") as folder:
        if manifest.dataset == "criteo":
            result = preprocess(Options(log, folder, vocabulary=vocabulary, scoring=True, max_bad_share=max_bad_share))
        else:
            schema = load_kept(vocabulary).schema
            where = f"the schema of {vocabulary}"
            scoring = LogOptions(
                log,
                folder,
                schema=schema,
                where=where,
                dataset=manifest.dataset,
                vocabulary=vocabulary,
                scoring=True,
                max_bad_share=max_bad_share,
            )
            result = preprocess_log(scoring)
        if bad := sum(result.bad_lines.values()):
            print(f"{bad:,} malformed line{'s' * (bad != 1)} of {result.lines:,} left out", file=sys.stderr)
        yield folder
