"""The files that the package ships: configs and ladders."""

import os
from pathlib import Path

from dmoe.errors import UserError, nearest

CONFIGS = Path(__file__).parent / "configs"


def find_config(path: str) -> str:
    """`path`; or, where no such file is here and the package ships one of that name, that one: `criteo_dmoe`, `configs/criteo_dmoe.yaml`.

    Raises:
        UserError: a bare name that is neither.

    Examples:
        >>> find_config("criteo_dmoe").endswith("configs/criteo_dmoe.yaml")
        True
        >>> find_config("my/own.yaml")
        'my/own.yaml'
    """
    if os.path.exists(path):
        return path
    name = path.removeprefix("configs/").removesuffix(".yaml")
    # os.path, which takes a name that is too long for a file that is not there.
    if os.path.isfile(shipped := str(CONFIGS / f"{name}.yaml")):
        return shipped
    if "/" not in path and "." not in path:
        names = sorted(one.stem for one in CONFIGS.glob("*.yaml"))
        raise UserError(f"--config {path}: no such file, and no config that dmoe brings along{nearest(path, names)}")
    return path
