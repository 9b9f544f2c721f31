"""Where FuxiCTR and DeepCTR-Torch are: here, or in an environment outside the repository that sees this one's PyTorch."""

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

PACKAGES = {"fuxictr": "import fuxictr.pytorch.layers", "deepctr": "import deepctr_torch.layers"}
# FuxiCTR imports ray wherever its layers are imported. The peers themselves come without their requirements, which would bring another
# PyTorch; these are the rest of them.
REQUIREMENTS = ["ray[data]>=2.52", "pandas", "scikit-learn", "h5py", "tqdm", "polars"]


def interpreter(folder: str) -> str:
    """This Python, or that of `folder`, which is made where it is not there."""
    if not folder:
        return sys.executable
    python = Path(folder) / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (site,) = Path(folder).glob("lib/python*/site-packages")
        (site / "dmoe.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "fuxictr", "deepctr-torch"], check=False)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=False)
    return str(python)


def missing(names: Sequence[str], python: str) -> dict[str, str]:
    """Those that cannot be imported, with the reason."""
    found = {name: reason(python, PACKAGES[name]) for name in names if name in PACKAGES}
    return {name: why for name, why in found.items() if why}


def reason(python: str, statement: str) -> str:
    """Why an interpreter cannot run an import; empty where it can."""
    tried = subprocess.run([python, "-c", statement], capture_output=True, text=True)
    return f"{(tried.stderr.strip().splitlines() or ['cannot be imported'])[-1]}; see --peers-venv" if tried.returncode else ""
