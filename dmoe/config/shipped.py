"""The files that the package ships: configs and ladders."""

import os
from pathlib import Path

from dmoe.errors import UserError, nearest

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def find_config(path: str) -> str:
    """`path`; or, if it is a bare name that no file here has, the shipped config of that name.

    Raises:
        UserError: a bare name without a config, or a missing `configs/NAME.yaml` of a shipped name. That one is not used unasked: an edited
            file may be meant, in another folder.

    Examples:
        >>> find_config("criteo_dmoe").endswith("configs/criteo_dmoe.yaml")
        True
        >>> find_config("my/own.yaml")
        'my/own.yaml'
    """
    if os.path.exists(path):
        return path
    name = path.removeprefix("configs/").removesuffix(".yaml")
    # os.path reports a name that is too long as missing.
    if os.path.isfile(shipped := str(CONFIGS / f"{name}.yaml")):
        if "/" not in path:
            return shipped
        if path == f"configs/{name}.yaml":
            raise UserError(f"--config {path}: no such file; for the config that dmoe brings along: --config {name}")
    if "/" not in path and "." not in path:
        names = sorted(one.stem for one in CONFIGS.glob("*.yaml"))
        raise UserError(f"--config {path}: no such file, and no config that dmoe brings along{nearest(path, names)}")
    return path
