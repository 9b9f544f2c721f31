"""Uploads a scorer to the trackers of its run, as the next version of a registered model."""

from dmoe.config.config import load_config
from dmoe.errors import UserError, one_line
from dmoe.storage.paths import inside
from dmoe.train.trackers.tracker import About, Tracker, check_installed
from dmoe.train.trackers.trackers import KINDS, ids_of


def check_register(run: str, name: str) -> list[str]:
    """The trackers of a run that can register models. Called before the export, so that it fails early.

    Raises:
        UserError: the run has no such tracker, or the package of one is not installed.
    """
    trackers = load_config(inside(run, "config.yaml")).run.trackers
    found: list[str] = [one for one in trackers if KINDS[one].model is not Tracker.model and one in ids_of(run)]
    if not found:
        raise UserError(
            f"--register {one_line(name)}: {run} has no record in a tracker with models: train with --set run.trackers=[mlflow], or [wandb]"
        )
    check_installed(found)
    return found


def register(run: str, folder: str, name: str, trackers: list[str]) -> list[str]:
    """Registers a scorer under a name in some trackers.

    Args:
        folder: folder of the scorer. For MLflow, the files of a `python_function` model are added to it.

    Returns:
        the name of the version in each tracker, such as `models:/clicks/3`.

    Raises:
        UserError: a tracker rejects the scorer; its folder is kept.
    """
    config, ids = load_config(inside(run, "config.yaml")), ids_of(run)
    made = []
    for one in trackers:
        if one == "mlflow":
            from dmoe.serve.portable.mlflow_model import write_mlmodel

            write_mlmodel(folder)
        tracker = KINDS[one]()
        try:
            tracker.begin(About(run, config.variant, kept=ids[one]))
            made.append(tracker.model(folder, name))
            tracker.end("finished")
        except Exception as error:
            why = one_line(f"{type(error).__name__}: {error}", 300)
            raise UserError(f"--register {one_line(name)}: {one}: {why}; the scorer is in {folder}") from error
    return made
