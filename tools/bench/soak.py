"""Kills a training job at random instants until it has been killed so many times, and shows that nothing came of it.

Every round trains the same model under torchrun's agent, which restarts it after each kill; its final weights, optimiser states and
logged figures are compared bit for bit with those of a run that nobody disturbed, and the rows that the final weights owe are counted.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dmoe.errors import UserError, run_command  # noqa: E402

CONFIG = """
model:
  embedding: {dim: 8}
  experts: [crossnet, {kind: mlp, hidden: [16]}]
  expert_dim: 8
  tower: {hidden: [8]}
correlation: {alpha: 0.1}
train:
  {batch_size: 64, epochs: EPOCHS, validations_per_epoch: 3, log_every: 10, checkpoint: {every_steps: 4}}
"""


class Killer(threading.Thread):
    """Kills rank 0, another rank or all ranks at random instants of the attempts.

    Args:
        window: an attempt is killed within so many seconds of its ranks' start.
    """

    def __init__(self, folder: Path, ranks: int, kills: int, window: float, dice: random.Random) -> None:
        super().__init__(daemon=True, name="killer")
        self.folder, self.ranks, self.left, self.window, self.dice = folder, ranks, kills, window, dice
        self.ended = threading.Event()
        self.killed: list[str] = []

    def run(self) -> None:
        seen: list[str] = []
        while self.left and not self.ended.is_set():
            pids = [self._read(f"pid-{rank}") for rank in range(self.ranks)]
            if "" in pids or any(pid in seen for pid in pids):
                time.sleep(0.02)
                continue
            seen += pids
            after = self.dice.uniform(0, self.window)
            if self.ended.wait(after):
                return
            target = self.dice.choice(["rank 0", f"rank {self.dice.randrange(1, self.ranks)}", "all ranks"])
            chosen = range(self.ranks) if target == "all ranks" else [int(target.split()[1])]
            at = self._read(f"at-{chosen[0]}").strip()
            try:
                for rank in chosen:
                    os.kill(int(pids[rank]), signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.left -= 1
            self.killed.append(f"{target:<10} {after:5.2f} s after its start, while it {at}")
            print(f"  killed {self.killed[-1]}", flush=True)

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench/soak.py", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the instants and targets")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/dmoe-soak"), help="emptied first")
    arguments = parser.parse_args()

    from tests.distributed.elastic import launch
    from tests.numbered_data import make_numbered_data_set

    folder: Path = arguments.folder
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.yaml").exists():
        raise UserError(f"--folder {folder}: holds something that is no soak's; name an empty one")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    make_numbered_data_set(folder / "data")
    (folder / "config.yaml").write_text(CONFIG.replace("EPOCHS", str(arguments.epochs)))
    command = ["--config", str(folder / "config.yaml"), "--set", f"data.path={folder}/data", "--resume"]

    def train(name: str, killer: Any = None, restarts: int = 0) -> float:
        place = folder / name
        place.mkdir(exist_ok=True)
        outcome = launch(place, arguments.ranks, [*command, "--set", f"run.dir={place}/run"], restarts=restarts)
        if killer is not None:
            killer.ended.set()
            killer.join()
        if not outcome.succeeded:
            raise UserError(f"{name}: the job failed with {outcome.codes}:\n{outcome.said}")
        return outcome.seconds

    seconds = train("undisturbed")
    print(f"undisturbed: {seconds:.1f} s, {arguments.ranks} ranks, {check(folder / 'undisturbed', folder, arguments.epochs)}", flush=True)
    dice, left, rounds, targets = random.Random(arguments.seed), arguments.kills, 0, Counter[str]()
    while left:
        rounds += 1
        place = folder / f"round-{rounds}"
        place.mkdir()
        killer = Killer(place, arguments.ranks, min(left, 10), seconds / 2, dice)
        print(f"round {rounds}:", flush=True)
        killer.start()
        took = train(place.name, killer, restarts=arguments.kills)
        left -= len(killer.killed)
        # The first run also waited for the imports; the instants have to lie within a run.
        seconds = min(seconds, took)
        targets.update(line.split("  ")[0] for line in killer.killed)
        print(f"  {len(killer.killed)} kills, {took:.1f} s: {check(place, folder, arguments.epochs)}", flush=True)
    parts = ", ".join(f"{name} {count}" for name, count in sorted(targets.items()))
    print(f"sound: {arguments.kills} kills ({parts}) in {rounds} rounds; all weights, states and figures equal, no row lost or twice")
    return 0


def check(place: Path, folder: Path, epochs: int) -> str:
    """Compares a finished run with the undisturbed one and counts its rows.

    Raises:
        UserError: something is not equal.
    """
    from dmoe.train.checkpoint import look
    from tests.distributed.elastic import used_rows

    lines, differ = look.diff(look.newest(f"{folder}/undisturbed/run"), look.newest(f"{place}/run"), 0.0)
    if differ:
        raise UserError(f"{place}: the final weights differ: {lines[0]}; {lines[-1]}")
    if figures(place) != figures(folder / "undisturbed"):
        raise UserError(f"{place}: metrics.jsonl is not the undisturbed run's")
    used = used_rows(place)
    counts = Counter(row for rows in used.values() for row in rows)
    wrong = [row for row in range(max(counts) + 1) if counts[row] != epochs]
    if wrong or sorted(used) != list(range(1, max(used) + 1)):
        raise UserError(f"{place}: {len(wrong)} rows were not used {epochs} times, the first is row {wrong[:1]}")
    return f"{lines[-1]}; {len(counts):,} rows used {epochs} times each in {len(used)} steps"


def figures(place: Path) -> list[dict[str, Any]]:
    """The logged figures, without those that are of the clock."""
    import json

    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    clock = ("samples_per_second", "eval_samples_per_second")
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/soak.py", main))
