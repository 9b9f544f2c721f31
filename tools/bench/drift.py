"""What staleness costs: AUC by hour of a frozen model, of `dmoe online` at several rhythms, and of training from the beginning.

    python tools/bench/drift.py --output /tmp/drift              # four days of 11,250 rows an hour: 1,080,000 rows
    python tools/bench/drift.py --output /tmp/drift --rows 1000
    python tools/bench/drift.py --output /tmp/drift --rows 1000 --switches

Every model is scored as a server would score: the rows of an hour, by the version that was published before it. A rhythm of n hours
learns from n files at a time. Training from the beginning ("anew") makes a new model of all hours before, one pass, once a day. The first
day is for warming up. Cost is in rows that were trained on. `--switches` tells instead what each switch of stability does to the hourly
loop.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.csv as csv

from dmoe.errors import UserError, run_command
from dmoe.metrics.auc import ExactAUC
from dmoe.serve.export.materialise import materialise
from dmoe.serve.scorer import Scorer
from dmoe.testing.drift import write_drift

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
model:
  embedding: {dim: 8}
  experts: [crossnet, {kind: mlp, hidden: [64, 32]}]
  expert_dim: 32
correlation: {alpha: 0.1}
train: {batch_size: 512, checkpoint: {keep: 2}}
online:
  schema_file: SCHEMA
  ids: {capacity: 30000, admit_count: 2, decay: 0.95}
  versions: {keep_full: 1000}
"""
DAY = 24
RHYTHMS = {"hourly": 1, "every 4 h": 4, "daily": DAY}
SWITCHES = {
    "as it is": [],
    "EMA": ["online.ema=0.99"],
    "rare rows slower": ["online.rate_power=0.25"],
    "rare rows faster": ["online.rate_power=-0.25"],
    "teacher": ["online.teacher=0.5"],
    "relative clip": ["optimizer.dense.relative_clip=0.5"],
    "replay": ["online.replay=0.2"],
    "state decay": ["online.state_decay=0.95"],
}
Curve = dict[int, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="of the log and the runs; what is finished there is not made again")
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--rows", type=int, default=11_250, help="of an hour")
    parser.add_argument("--line", type=int, default=4, help="hours of a line of the table")
    parser.add_argument("--turnover", type=float, default=0.02, help="share of the tokens that is born, and dies, an hour")
    parser.add_argument("--speed", type=float, default=0.02, help="radians that a token's worth turns an hour")
    names = ", ".join(SWITCHES)
    parser.add_argument(
        "--switches", nargs="*", metavar="NAME", help=f"only the hourly loop with each of these switches, or with all: {names}"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the config, such as train.batch_size=2048")
    arguments = parser.parse_args()
    if unknown := set(arguments.switches or ()) - SWITCHES.keys():
        raise UserError(f"--switches {min(unknown)}: expected some of {names}")
    if arguments.days < 2:
        raise UserError(f"--days is {arguments.days}, expected 2 or more: the first one is for warming up")
    import torch

    torch.set_num_threads(1)
    hours = arguments.days * DAY
    bench = Bench(arguments.output, hours, arguments.rows, arguments.turnover, arguments.speed, arguments.set)
    later = range(DAY + 1, hours + 1)
    curves: dict[str, Curve] = {"Bayes": bench.bayes()}
    costs: dict[str, int] = {}
    if arguments.switches is not None:
        for name in arguments.switches or SWITCHES:
            curves[name], _ = bench.followed(f"switch {name}", hours, 1, later, SWITCHES[name])
        print(as_table(curves, later, arguments.line))
        print(differences(curves, later))
    else:
        for name, rhythm in RHYTHMS.items():
            curves[name], costs[name] = bench.followed(name, hours, rhythm, later)
        curves["frozen"], costs["frozen"] = bench.followed("frozen", DAY, DAY, later)
        curves["anew daily"], costs["anew daily"] = {}, 0
        for day in range(1, arguments.days):
            curve, cost = bench.followed(f"anew {day}", day * DAY, day * DAY, range(day * DAY + 1, (day + 1) * DAY + 1))
            curves["anew daily"] |= curve
            costs["anew daily"] += cost
        print(as_table(curves, later, arguments.line))
        print(gains(curves, costs, later))
    name = "drift.json" if arguments.switches is None else "switches.json"
    (arguments.output / name).write_text(json.dumps({"auc": curves, "rows": costs}, indent=1) + "\n")


class Bench:
    """A log, and the runs over it.

    Args:
        folder: of both; what is finished there is not made again.
        settings: of every run's config.
    """

    def __init__(self, folder: Path, hours: int, rows: int, turnover: float, speed: float, settings: Sequence[str]) -> None:
        self.folder, self.logs, self.settings = folder, folder / "logs", list(settings)
        if not (self.logs / "truth.json").exists():
            write_drift(str(self.logs), hours, rows, turnover=turnover, speed=speed)
        (folder / "online.yaml").write_text(CONFIG.replace("SCHEMA", str(self.logs / "schema.yaml")))

    def bayes(self) -> Curve:
        windows = json.loads((self.logs / "truth.json").read_text())["windows"]
        return {hour: one["bayes_auc"] for hour, one in enumerate(windows, 1)}

    def followed(self, name: str, hours: int, rhythm: int, later: Sequence[int], settings: Sequence[str] = ()) -> tuple[Curve, int]:
        """Runs over the first hours, so many at a time.

        Returns:
            the AUC of each later hour, by the version before it; and how many rows were trained on.
        """
        place = self.folder / name.replace(" ", "-")
        if not (place / "auc.json").exists():
            began = time.monotonic()
            self._follow(place, hours, rhythm, settings)
            trained = time.monotonic() - began
            curve = {hour: self._auc(place, min((hour - 1) // rhythm, hours // rhythm), hour) for hour in later}
            print(f"{name}: ran for {trained:.0f} s, scored for {time.monotonic() - began - trained:.0f} s", file=sys.stderr, flush=True)
            (place / "auc.json").write_text(json.dumps(curve) + "\n")
        lines = [json.loads(line) for line in (place / "run" / "ledger.jsonl").read_text().splitlines()]
        curve = {int(hour): auc for hour, auc in json.loads((place / "auc.json").read_text()).items()}
        return curve, sum(line["rows"] + line.get("replayed", 0) for line in lines)

    def _follow(self, place: Path, hours: int, rhythm: int, settings: Sequence[str]) -> None:
        shutil.rmtree(place, ignore_errors=True)
        (place / "logs").mkdir(parents=True)
        for hour in range(1, hours + 1):
            os.link(self.logs / f"window-{hour:04d}.csv", place / "logs" / f"window-{hour:04d}.csv")
        command = [sys.executable, "-m", "dmoe", "online", "--config", str(self.folder / "online.yaml")]
        command += ["--source", str(place / "logs"), "--once", "--run", str(place / "run"), "--publish", str(place / "versions")]
        command += ["--set", f"online.windows.size={float(rhythm)}", "online.watch.action=tell", *self.settings, *settings]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (place / "said.txt").open("w") as said:
            subprocess.run(command, check=True, env=environment, stdout=said, stderr=said)

    def _auc(self, place: Path, version: int, hour: int) -> float:
        """Of an hour's rows, by the version after so many windows of the run."""
        import torch

        made = place / "scorers" / f"{version:06d}"
        scorer = Scorer(materialise(str(place / "versions" / "versions" / f"{version:06d}"), str(made)), verify=False)
        table = csv.read_csv(self.logs / f"window-{hour:04d}.csv")
        score = np.concatenate([scorer.predict(part) for start in range(0, len(table), 8192) for part in [table.slice(start, 8192)]])
        auc = ExactAUC()
        label = torch.from_numpy(table["click"].to_numpy().astype(np.float32))
        auc.update(torch.from_numpy(score), label, torch.ones(len(label)))
        shutil.rmtree(made, ignore_errors=True)
        return float(auc.compute())


def as_table(curves: Mapping[str, Curve], later: range, line: int) -> str:
    """In Markdown: means of so many hours a line, and of all."""
    names = list(curves)
    rows = [["hours", *names], ["---"] * (len(names) + 1)]
    spans = [later[start : start + line] for start in range(0, len(later), line)]
    for label, span in [*((f"{span[0]} - {span[-1]}", span) for span in spans), ("all", later)]:
        rows.append([label, *(f"{np.mean([curves[name][hour] for hour in span]):.4f}".lstrip("0") for name in names)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def differences(curves: Mapping[str, Curve], later: range) -> str:
    """What each switch gains over the first one, a mean over hours with its standard error: hours are paired, their rows are the same."""
    names = [name for name in curves if name != "Bayes"]
    lines = []
    for name in names[1:]:
        gain = np.array([curves[name][hour] - curves[names[0]][hour] for hour in later])
        lines.append(f"{name}: {gain.mean():+.4f} +- {gain.std(ddof=1) / len(gain) ** 0.5:.4f}")
    return "\n".join(lines)


def gains(curves: Mapping[str, Curve], costs: Mapping[str, int], later: range) -> str:
    """What each rhythm reaches of what training anew gains over the frozen model, and at which share of its rows."""
    means = {name: float(np.mean([curve[hour] for hour in later])) for name, curve in curves.items()}
    gain, anew = means["anew daily"] - means["frozen"], costs["anew daily"]
    return "\n".join(
        f"{name}: {rows:,} rows trained ({rows / anew:.0%} of anew), {(means[name] - means['frozen']) / gain:.0%} of its gain over frozen"
        for name, rows in costs.items()
    )


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/drift.py", main))
