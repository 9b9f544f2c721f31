"""Reads from a run directory which features its model reads. Does not need torch."""

from dmoe.config.config import load_config
from dmoe.config.sections import DataConfig
from dmoe.data.dataset.compatibility import Inputs, check_compatible, inputs_of, model_inputs
from dmoe.data.dataset.earlier import with_identities
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.errors import UserError
from dmoe.storage.paths import PATHS, inside, join

CONFIG, SCHEMA = "config.yaml", "manifest.json"


def run_inputs(run: str) -> Inputs:
    """The features that a run's model reads, with their identities.

    Raises:
        UserError: no run in that folder, or its config or manifest is damaged.
    """
    for name in (CONFIG, SCHEMA):
        if not PATHS.exists(inside(run, name)):
            raise UserError(f"{run}: no {name}, so nothing tells what the ids of the model mean; give a run's directory as it was written")
    data = load_config(join(run, CONFIG)).data
    return model_inputs(data, with_identities(load_manifest(run), data.path))


def check_same_ids(run: str, data: DataConfig, manifest: Manifest, grown: bool = False) -> Inputs:
    """Refuses a data set whose ids, in their order, are not those of the run's model, which is returned. `grown`: it may have further
    ids."""
    model = run_inputs(run)
    check_compatible(model, model_inputs(data, with_identities(manifest, data.path)), data.path, ordered=True, grown=grown)
    return model


def check_data(model: Inputs, manifest: Manifest, folder: str) -> None:
    """Refuses a data set whose ids or numbers mean something else than those of the model. Features are compared by name.

    Raises:
        UserError: names the first feature that differs.
    """
    check_compatible(model, inputs_of(with_identities(manifest, folder)), folder)
