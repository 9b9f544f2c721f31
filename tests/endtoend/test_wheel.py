"""The wheel in an environment of its own, outside any checkout: what the README's commands and its Python need is in it."""

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["model.embedding.dim=4", "model.expert_dim=8", "train.batch_size=256", "train.log_every=20"]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {"PATH": f"{Path(command[0]).parent}:/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def binaries(tmp_path_factory) -> Path:
    """Programs of a fresh environment that holds the wheel, and finds the packages of the lock where they are installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    source = folder / "source"
    for name in filter(None, tracked):
        if name.startswith(("dmoe/", "configs/", "pyproject.toml", "README.md", "LICENSE")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                target.symlink_to((ROOT / name).readlink())
            else:
                target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source, cwd=folder)
    venv.create(folder / "env", with_pip=False, symlinks=True)
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    # A path file adds the folder alone: an editable install of dmoe in it stays out of sight.
    (packages / "lock.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = (folder / "dist").glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", folder / "env/bin/python", "install", "-q", "--no-deps", wheel, cwd=folder)
    return folder / "env/bin"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A folder whose files have the names of modules that dmoe imports."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("yaml.py", "tools.py", "numpy.py"):
        (folder / name).write_text("raise SystemExit('imported from the current folder')\n")
    (folder / "launch").mkdir()
    (folder / "launch/__init__.py").write_text("raise SystemExit('imported from the current folder')\n")
    return folder


@pytest.mark.slow
def test_the_readme_works_from_the_wheel(binaries, elsewhere):
    dmoe = binaries / "dmoe"
    where = run(binaries / "python", "-P", "-c", "import dmoe; print(dmoe.__file__)", cwd=elsewhere)
    assert str(binaries.parent) in where
    run(dmoe, "synthesize", "criteo", "--rows", "6000", "--seed", "1", "--output", "log.tsv", cwd=elsewhere)
    run(dmoe, "preprocess", "criteo", "--input", "log.tsv", "--output", "data/criteo", "--min-count", "3", cwd=elsewhere)
    run(dmoe, "train", "--config", "demo", "--set", "data.path=data/criteo", "run.dir=runs/first", *SMALL, cwd=elsewhere)
    assert "AUC" in run(dmoe, "evaluate", "--run", "runs/first", cwd=elsewhere)
    plan = ["plan", "make", "--config", "criteo_1tb_cluster", "--data", "data/criteo", "--cluster", "2x2:h100", "--output", "p.json"]
    assert "critical rank" in run(dmoe, *plan, cwd=elsewhere)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    auc = float(run(binaries / "python", "-P", "-c", example, cwd=elsewhere))
    assert 0.4 < auc < 0.9
    assert (elsewhere / "checkpoint/index.json").exists()


@pytest.mark.slow
def test_components_are_found_by_name(binaries, elsewhere):
    listed = run(binaries / "python", "-P", "-c", "from torchx.cli.main import main; main(['builtins'])", cwd=elsewhere)
    assert {"dmoe.train", "dmoe.evaluate", "dmoe.preprocess", "dmoe.ladder", "dist.ddp"} <= set(re.findall(r"\d+\. (\S+)", listed))
