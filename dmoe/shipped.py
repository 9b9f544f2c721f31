"""The files that the package ships: configs and ladders."""

import os
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"


def find_config(path: str) -> str:
    """`path`; or, where it is a bare name that no file here has, the shipped config of that name.

    Examples:
        >>> find_config("criteo_dmoe").endswith("configs/criteo_dmoe.yaml")
        True
        >>> find_config("my/own.yaml")
        'my/own.yaml'
    """
    if "/" in path or os.path.exists(path):
        return path
    shipped = CONFIGS / f"{path.removesuffix('.yaml')}.yaml"
    return str(shipped) if shipped.is_file() else path
