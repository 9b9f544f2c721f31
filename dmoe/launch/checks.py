"""Checks a launch before the job is submitted, so that mistakes are found on the laptop and not after the job has waited in the queue."""

from collections.abc import Callable, Sequence
from os.path import exists
from pathlib import Path

from dmoe.cli.main import checked
from dmoe.config.config import Config, load_config
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.options import WORK
from dmoe.errors import UserError
from dmoe.launch.resources import Ranks
from dmoe.online.checks import check, schema_of
from dmoe.report.ladder.spec import load_spec, resolve
from dmoe.storage.paths import join

Sees = Callable[[str], bool]


def check_training(config: str, overrides: list[str], ranks: Ranks, resume: bool, sees: Sees) -> Config:
    """Reads the config as the job will, and checks data and run directory if this machine can see them.

    Args:
        config: the config file.
        overrides: `key=value`, as the job gets them.
        ranks: number of ranks.
        resume: whether the job resumes an existing run.
        sees: tells whether this machine sees a path as the job will; paths that it does not see are not checked.

    Raises:
        UserError: the first mistake.
    """
    found = load_config(config, overrides)
    if not found.run.dir:
        raise UserError("--run: name the directory for the run, such as --run runs/first")
    if not found.data.path:
        raise UserError("--data: name the folder of the data set, such as --data data/criteo")
    if found.train.batch_size < ranks.total:
        raise UserError(f"train.batch_size: {found.train.batch_size} rows for {ranks.total} ranks; each needs a row; --set more")
    if sees(found.data.path):
        _check_data(found)
    start = found.train.init_from
    if start and not resume and sees(start) and not any(exists(join(start, name)) for name in _BEGINS):
        raise UserError(f"train.init_from: {start}: neither a checkpoint nor a run with one; {_ELSEWHERE}")
    if not resume and sees(found.run.dir) and exists(join(found.run.dir, "config.yaml")):
        raise UserError(f"--run {found.run.dir}: holds a run already; add --resume True to continue it, or choose another directory")
    return found


def check_online(config: str, overrides: list[str], run: str, ranks: Ranks, sees: Sees) -> None:
    """Reads the config and the schema as the job will.

    Raises:
        UserError: the first mistake.
    """
    found = load_config(config, overrides)
    check(found, run)
    if found.train.batch_size < ranks.total:
        raise UserError(f"train.batch_size: {found.train.batch_size} rows for {ranks.total} ranks; each needs a row; --set more")
    path = found.data.path or found.online.schema_file
    if sees(path):
        schema_of(found)


def check_run(run: str, data: str, split: str, sees: Sees) -> None:
    """Checks that there is a run to evaluate, and that its data, or `data`, has the split.

    Raises:
        UserError: one of them is missing.
    """
    if sees(run) and not exists(join(run, "config.yaml")):
        raise UserError(f"--run {run}: no run there (no config.yaml); {_ELSEWHERE}")
    seen = data or run
    if (data or split) and sees(seen):
        manifest = load_manifest(seen)
        if split:
            try:
                manifest.split(split)
            except UserError as error:
                raise UserError(f"--split: {error}") from None


def check_input(path: str, sees: Sees) -> None:
    """Checks that there is a log to preprocess.

    Raises:
        UserError: there is none.
    """
    if not sees(path):
        return
    given = Path(path)
    if not exists(given) and not any(Path(given.anchor or ".").glob(str(given.relative_to(given.anchor)))):
        raise UserError(f"--input {path}: no such file, folder or glob; {_ELSEWHERE}")


def check_model(path: str, sees: Sees) -> None:
    """Checks that there is a scorer to serve.

    Raises:
        UserError: there is none.
    """
    if sees(path) and not exists(path):
        raise UserError(f"--model {path}: no scorer and no pointer file there; {_ELSEWHERE}")


def work_of(arguments: Sequence[str]) -> str:
    """The folder for intermediate files, from the arguments of `dmoe preprocess`.

    Raises:
        UserError: the output is remote, and --work is not given.
    """
    given = checked(arguments)
    if not given.work and "://" in given.output:
        raise UserError(f"--output {given.output}: remote; name a folder that all nodes see for the work in progress, behind --: --work W")
    return str(given.work or join(given.output, WORK))


def check_ladder(config: str, overrides: list[str], data: str, sees: Sees) -> None:
    """Checks that every variant of a ladder is a valid config, and that there is a data set.

    Raises:
        UserError: the first mistake.
    """
    spec = load_spec(config)
    for name in spec.variants:
        resolve(spec, config, name, 0, overrides, "ladder")
    if data and sees(data):
        load_manifest(data)


_BEGINS = ("index.json", "checkpoints")
_ELSEWHERE = "--elsewhere True where only the cluster sees it"


def _check_data(config: Config) -> None:
    try:
        manifest = load_manifest(config.data.path)
    except UserError as error:
        hint = "" if exists(config.data.path) else f"; {_ELSEWHERE}"
        raise UserError(f"{error}{hint}") from None
    for split in (config.data.train_split, config.data.validation_split, config.data.test_split):
        try:
            manifest.split(split)
        except UserError as error:
            raise UserError(join(config.data.path, str(error))) from None
