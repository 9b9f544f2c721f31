"""What lies in an output folder before a run of preprocessing."""

import shutil

from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest
from dmoe.data.run_options import RunOptions
from dmoe.data.sources import STDIN
from dmoe.errors import UserError
from dmoe.paths import PATHS, join


def refuse_other_than_stdin(options: RunOptions) -> None:
    """Before all of standard input is read: a data set made from files is another one in any case.

    Raises:
        UserError: the output holds such a data set.
    """
    old = _data_set_there(options)
    if old and STDIN not in str(old.made_by.get("command")).split():
        raise _holds_another(options)


def finished_before(options: RunOptions, fingerprint: str) -> Manifest | None:
    """The data set that the same command made before, if it is there; what a killed run left of its work in progress is removed.

    Raises:
        UserError: the output holds another data set, which is not to be overwritten.
    """
    old = _data_set_there(options)
    if old and old.made_by.get("fingerprint") != fingerprint:
        raise _holds_another(options)
    if old:
        shutil.rmtree(options.work_folder, ignore_errors=True)
    return old


def _data_set_there(options: RunOptions) -> Manifest | None:
    return None if options.overwrite or not PATHS.exists(join(options.output, FILE)) else load_manifest(options.output)


def _holds_another(options: RunOptions) -> UserError:
    return UserError(f"--output {options.output}: holds another data set; name another folder, or replace it with --overwrite")
