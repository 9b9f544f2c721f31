"""The whole way in about three minutes: a raw log becomes a trained, sharded and evaluated D-MoE, beside its baseline.

Every step is a command that you can run yourself; it is printed before it runs.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from dmoe.errors import UserError, run_command

CONFIGS = {"homo_se": "configs/demo_homo_se.yaml", "dmoe": "configs/demo.yaml"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/demo.py", description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the log (default 300,000)")
    parser.add_argument("--ranks", type=int, default=2, help="processes that the tables are sharded over (default 2)")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where everything goes; emptied first (default .demo)")
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    os.chdir(root)
    folder: Path = arguments.folder
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "demo.log").exists():
            raise UserError(f"--folder {folder}: holds something that is no demo's; name an empty one")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "demo.log").write_text("")
    began = time.perf_counter()
    tool = Path(sys.executable).name
    step(
        "1. A raw log",
        [tool, "tools/synthesize.py", "criteo", "--rows", str(arguments.rows), "--seed", "1", "--output", f"{folder}/log.tsv"],
    )
    step(
        "2. Shards and a manifest",
        [tool, "tools/preprocess.py", "criteo", "--input", f"{folder}/log.tsv", "--output", f"{folder}/data", "--min-count", "10"],
    )
    plan = ["make", "--config", CONFIGS["dmoe"], "--data", f"{folder}/data", "--cluster", f"1x{arguments.ranks}:cpu"]
    step("3. Plan D-MoE's tables, before anything runs", [tool, "tools/plan.py", *plan, "--output", f"{folder}/plan.json"])
    step("   What the plan does", [tool, "tools/plan.py", "show", f"{folder}/plan.json", "--top", "8"])
    for name, config in CONFIGS.items():
        launch = ["torchx", "run", "--scheduler", "local_cwd", "launch/components.py:train", "--config", config]
        launch += ["--data", f"{folder}/data", "--run", f"{folder}/{name}", "--j", f"1x{arguments.ranks}"]
        launch += ["--", "--plan", f"{folder}/plan.json"] if name == "dmoe" else []
        step(f"4. Train {name} on {arguments.ranks} ranks", launch)
    step("5. Evaluate D-MoE again, from its checkpoint", [tool, "-m", "dmoe.evaluate", "--run", f"{folder}/dmoe"])
    runs = [f"{folder}/{name}" for name in CONFIGS]
    title = ["--title", "D-MoE beside Homo-MoE (SE)"]
    step("6. Side by side", [tool, "tools/report.py", "runs", *runs, "--output", f"{folder}/report.html", *title])
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Open {folder / 'report.html'} in a browser; TensorBoard: --logdir {folder}")


def step(title: str, command: list[str]) -> None:
    """Says what runs, and runs it with the environment's own programs.

    Raises:
        UserError: it failed; its own message is on the screen already.
    """
    print(f"\n== {title}\n$ {shlex.join(command)}", flush=True)
    beside = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": beside + os.pathsep + os.environ.get("PATH", ""), "PYTHONPATH": os.getcwd()}
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise UserError(f"step '{title}' failed with exit code {code}; its message is above")


if __name__ == "__main__":
    sys.exit(run_command("tools/demo.py", main))
