"""What staleness costs: AUC by window of a frozen model, of `dmoe online` at several rhythms, and of training from the beginning.

    python tools/bench/drift.py --output /tmp/drift                        # 24 windows of 45,000 rows; about an hour on 2 idle cores
    python tools/bench/drift.py --output /tmp/drift --rows 3000 --full-every 12

Every model is scored as a server would score: the rows of window w, by the version that was published before it. A rhythm of n windows
learns from n files at a time. Training from the beginning ("full") makes a new model of all windows before, one pass, every
`--full-every` windows. Cost is in rows that were trained on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as csv

ROOT = Path(__file__).resolve().parents[2]
from dmoe.errors import UserError, run_command  # noqa: E402
from dmoe.metrics.auc import ExactAUC  # noqa: E402
from dmoe.serve.delta import materialise  # noqa: E402
from dmoe.serve.scorer import Scorer  # noqa: E402
from dmoe.testing.drift import write_drift  # noqa: E402

CONFIG = """
model:
  embedding: {dim: 8}
  experts: [crossnet, {kind: mlp, hidden: [64, 32]}]
  expert_dim: 32
correlation: {alpha: 0.1}
train: {batch_size: 512, checkpoint: {keep: 2}}
online:
  schema_file: SCHEMA
  ids: {capacity: 30000, admit_count: 2, decay: 0.8}
  versions: {keep_full: 1000}
"""
RHYTHMS = (1, 3, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="of the log and the runs; what is finished there is not made again")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--rows", type=int, default=45_000, help="of a window")
    parser.add_argument("--warm", type=int, default=6, help="windows that the frozen model learns from, and that no mean counts")
    parser.add_argument("--full-every", type=int, default=3, help="windows between two trainings from the beginning")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the config, such as online.state_decay=0.9")
    arguments = parser.parse_args()
    if arguments.warm % max(RHYTHMS) or arguments.warm >= arguments.windows:
        raise UserError(f"--warm: expected a multiple of {max(RHYTHMS)} below --windows")
    folder, logs = arguments.output, arguments.output / "logs"
    if not (logs / "truth.json").exists():
        write_drift(str(logs), arguments.windows, arguments.rows)
    (folder / "online.yaml").write_text(CONFIG.replace("SCHEMA", str(logs / "schema.yaml")))
    truth = json.loads((logs / "truth.json").read_text())["windows"]
    curves: dict[str, dict[int, float]] = {"Bayes": {number: one["bayes_auc"] for number, one in enumerate(truth, 1)}}
    costs: dict[str, float] = {}
    later = range(arguments.warm + 1, arguments.windows + 1)
    for rhythm in RHYTHMS:
        name = f"every {rhythm}"
        place, costs[name] = follow(folder, name, arguments.windows, rhythm, arguments.set)
        curves[name] = {window: auc_of(place, (window - 1) // rhythm, logs, window) for window in later}
    place, costs["frozen"] = follow(folder, "frozen", arguments.warm, arguments.warm, arguments.set)
    curves["frozen"] = {window: auc_of(place, 1, logs, window) for window in later}
    curves["full"], costs["full"] = {}, 0.0
    for window in later[:: arguments.full_every]:
        place, cost = follow(folder, f"full-{window}", window - 1, window - 1, arguments.set)
        costs["full"] += cost
        curves["full"] |= {near: auc_of(place, 1, logs, near) for near in range(window, min(window + arguments.full_every, later[-1] + 1))}
    print(report(curves, costs, list(later)))
    (folder / "drift.json").write_text(json.dumps({"auc": curves, "rows": costs}, indent=1) + "\n")


def follow(folder: Path, name: str, windows: int, rhythm: int, more: list[str]) -> tuple[Path, float]:
    """Where the versions of a run over the first windows are, and how many rows it trained on."""
    place = folder / name.replace(" ", "-")
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        (place / "logs").mkdir(parents=True)
        for number in range(1, windows + 1):
            os.link(folder / "logs" / f"window-{number:04d}.csv", place / "logs" / f"window-{number:04d}.csv")
        command = [
            sys.executable,
            "-m",
            "dmoe",
            "online",
            "--config",
            str(folder / "online.yaml"),
            "--source",
            str(place / "logs"),
            "--once",
        ]
        command += ["--run", str(place / "run"), "--publish", str(place / "versions")]
        command += ["--set", f"online.windows.size={float(rhythm)}", "online.watch.action=tell", *more]
        began = time.monotonic()
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        (place / "done").write_text(f"{time.monotonic() - began:.1f}\n")
    lines = [json.loads(line) for line in (place / "run" / "ledger.jsonl").read_text().splitlines()]
    return place, float(sum(line["rows"] for line in lines))


def auc_of(place: Path, version: int, logs: Path, window: int) -> float:
    """Of a window's rows, by the version after so many windows of the run."""
    import torch

    made = place / "scorers" / f"{version:06d}"
    scorer = Scorer(materialise(str(place / "versions" / "versions" / f"{version:06d}"), str(made)), verify=False)
    table = csv.read_csv(logs / f"window-{window:04d}.csv")
    score = np.concatenate([scorer.predict(part) for start in range(0, len(table), 8192) for part in [table.slice(start, 8192)]])
    auc = ExactAUC()
    label = torch.from_numpy(table["click"].to_numpy().astype(np.float32))
    auc.update(torch.from_numpy(score), label, torch.ones(len(label)))
    shutil.rmtree(made, ignore_errors=True)
    return float(auc.compute())


def report(curves: dict[str, Any], costs: dict[str, float], later: list[int]) -> str:
    """A table by window, the means, and how much of what full training gains over the frozen model each rhythm gains."""
    names = list(curves)
    lines = ["window  " + "  ".join(name.rjust(8) for name in names)]
    lines += [f"{window:>6}  " + "  ".join(f"{curves[name][window]:8.4f}" for name in names) for window in later]
    means = {name: float(np.mean([curves[name][window] for window in later])) for name in names}
    lines.append("  mean  " + "  ".join(f"{means[name]:8.4f}" for name in names))
    gain = means["full"] - means["frozen"]
    for name, cost in costs.items():
        reached = (means[name] - means["frozen"]) / gain if gain else float("nan")
        lines.append(
            f"{name:>9}: {cost:>12,.0f} rows trained ({cost / costs['full']:.1%} of full), {reached:.1%} of full's gain over frozen"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/drift.py", main))
