"""Run the whole pipeline in about two minutes: from a raw log to a trained, sharded and evaluated D-MoE and its baseline.

Every step is a command that you can also run yourself. It is printed before it runs.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from dmoe.errors import UserError
from dmoe.json_text import format_json
from dmoe.testing.criteo import read_rows

CONFIGS = {"homo_se": "demo_homo_se", "dmoe": "demo"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the log (default 300,000)")
    parser.add_argument("--ranks", type=int, default=2, help="number of ranks over which the tables are sharded (default 2)")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="folder for all files; it is emptied first (default .demo)")


def run(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "demo.log").exists():
            raise UserError(f"--folder {folder}: holds files of something else than this demo; name an empty folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "demo.log").write_text("")
    began = time.perf_counter()
    rows = ["--rows", str(arguments.rows), "--seed", "1"]
    step("1. A raw log", ["dmoe", "synthesize", "criteo", *rows, "--output", f"{folder}/log.tsv"])
    step("2. Shards and a manifest", ["dmoe", "preprocess", "criteo", "--input", f"{folder}/log.tsv", "--output", f"{folder}/data"])
    plan = ["make", "--config", CONFIGS["dmoe"], "--data", f"{folder}/data", "--cluster", f"1x{arguments.ranks}:cpu"]
    step("3. Plan D-MoE's tables, before anything runs", ["dmoe", "plan", *plan, "--output", f"{folder}/plan.json"])
    step("   What the plan does", ["dmoe", "plan", "show", f"{folder}/plan.json", "--top", "8"])
    for name, config in CONFIGS.items():
        launch = ["torchx", "run", "--scheduler", "local_cwd", "dmoe.train", "--config", config]
        launch += ["--data", f"{folder}/data", "--run", f"{folder}/{name}", "--j", f"1x{arguments.ranks}"]
        # Keep the logits of the test split, to compare the scorer with them.
        launch += ["--", *(["--plan", f"{folder}/plan.json"] if name == "dmoe" else []), "--set", "metrics.predictions=true"]
        step(f"4. Train {name} on {arguments.ranks} ranks", launch)
    step("5. Evaluate D-MoE again, from its checkpoint", ["dmoe", "evaluate", "--run", f"{folder}/dmoe"])
    runs = [f"{folder}/{name}" for name in CONFIGS]
    title = ["--title", "D-MoE beside Homo-MoE (SE)"]
    step("6. Side by side", ["dmoe", "report", "runs", *runs, "--output", f"{folder}/report.html", *title])
    export = ["dmoe", "export", "--run", f"{folder}/dmoe", "--output", f"{folder}/scorer", *onnx_format()]
    step("7. A scorer, compared with the evaluation", export)
    (folder / "rows.json").write_text(format_json({"rows": read_rows(folder / "log.tsv", 3)}) + "\n")
    print("\n== 8. Serve it, and score raw rows of the log\n$ dmoe serve --model", f"{folder}/scorer &")
    print(f"$ curl -d @{folder}/rows.json localhost:8080/score")
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Open {folder / 'report.html'} in a browser; TensorBoard: --logdir {folder}")


def onnx_format() -> list[str]:
    """The words for ONNX files in the scorer, by which dmoe serve is fastest; none where dmoe[onnx] is not installed."""
    from dmoe.serve.portable.export import missing_packages

    return [] if missing_packages() else ["--format", "onnx"]


def step(title: str, command: list[str]) -> None:
    """Prints and runs a command, with the programs of this Python environment.

    Raises:
        UserError: the command failed. It has printed its own message.
    """
    print(f"\n== {title}\n$ {shlex.join(command)}", flush=True)
    beside = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": beside + os.pathsep + os.environ.get("PATH", "")}
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise UserError(f"step '{title}' failed with exit code {code}; its message is above")
