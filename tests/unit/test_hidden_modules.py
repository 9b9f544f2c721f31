"""Packages that a command hides are not imported in its process, and can be afterwards."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from dmoe.processes.hidden_modules import hidden

ROOT = Path(__file__).resolve().parents[2]


def test_a_hidden_package_cannot_be_imported_but_what_is_loaded_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "shy_package").mkdir()
    for name in ("__init__", "one", "other"):
        (tmp_path / "shy_package" / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    import_module("shy_package.one")
    with hidden("shy_package", "shy"):
        assert import_module("shy_package.one") is sys.modules["shy_package.one"]
        with pytest.raises(ModuleNotFoundError) as caught:
            import_module("shy_package.other")
        assert caught.value.name == "shy_package.other"
    assert import_module("shy_package.other").__name__ == "shy_package.other"


def test_preprocessing_imports_neither_pandas_nor_scipy_linalg(tmp_path: Path):
    """Both are installed here, and pyarrow and numba would import them."""
    (tmp_path / "log.csv").write_text("click,site\n" + "".join(f"{n % 2},{n % 3}\n" for n in range(60)))
    (tmp_path / "schema.yaml").write_text("{label: click, categorical: [site]}")
    words = ["preprocess", "log", "--schema", "schema.yaml", "--input", "log.csv", "--output", "d"]
    code = f"import sys; from dmoe.cli.main import main; main({words}); print({{'pandas', 'scipy.linalg'}} & {{*sys.modules}})"
    code += "; import pandas, scipy.linalg"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert (tmp_path / "d" / "manifest.json").exists()
