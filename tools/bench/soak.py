"""Kills a training job until it has been killed so many times, and shows that nothing came of it.

Rank 0, another rank and all ranks are killed in turn: in training, in a checkpoint's write and in an evaluation, each at a random one;
one rank is also killed as it starts, which is where it loads a checkpoint.
Every round trains the same model under torchrun's agent, which restarts it after each kill; its final weights, optimizer states and
logged figures are compared bit for bit with those of a run that nobody disturbed, and the rows that the final weights owe are counted.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from dmoe.errors import UserError, run_command

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


TARGETS = ("rank 0", "another rank", "all ranks")
POINTS = {"training": ("step", 10), "a checkpoint's write": ("half", 4), "an evaluation": ("evaluate", 2)}
"""Where a rank is killed -> the point of dmoe/testing/elastic.py, and by the how many-th passing of an attempt at the latest."""
START = ("its start", "start")
SPREAD_SECONDS = {"step": 0.03, "start": 1.0}
"""A kill in training comes so long after the end of a step at most: anywhere in the next ones; one in the start, after its begin."""
KILLS_A_ROUND = 9


def kills_of(first: int, count: int, ranks: int, dice: random.Random) -> list[dict[str, Any]]:
    """A kill for each attempt of a round: every target at every point in turn, at a random passing of it.

    Args:
        first: how many kills there were before.
    """
    turns = list(itertools.product(POINTS, TARGETS if ranks > 1 else TARGETS[::2]))
    # The ranks do not begin together, so no one of them could tell whom else to kill.
    turns += itertools.product(START[:1], TARGETS[:2] if ranks > 1 else TARGETS[:1])
    kills = []
    for attempt in range(count):
        point, target = turns[(first + attempt) % len(turns)]
        rank = 0 if target == "rank 0" else dice.randrange(1, ranks) if target == "another rank" else dice.randrange(ranks)
        at, latest = (START[1], 1) if point == START[0] else POINTS[point]
        kills.append(
            {
                "attempt": attempt,
                "at": at,
                "number": dice.randint(1, latest),
                "rank": rank,
                "do": "kill ranks",
                "ranks": list(range(ranks)) if target == "all ranks" else [rank],
                "after": dice.uniform(0, SPREAD_SECONDS.get(at, 0)),
                "point": point,
                "target": target,
            }
        )
    return kills


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench/soak.py", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the instants and targets")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/dmoe-soak"), help="emptied first")
    arguments = parser.parse_args()

    from dmoe.testing.elastic import launch
    from dmoe.testing.small_data import make_data_set

    folder: Path = arguments.folder
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.yaml").exists():
        raise UserError(f"--folder {folder}: holds something that is no soak's; name an empty one")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    make_data_set(folder / "data", numbered=True)
    (folder / "config.yaml").write_text(CONFIG.replace("EPOCHS", str(arguments.epochs)))
    command = ["--config", str(folder / "config.yaml"), "--set", f"data.path={folder}/data", "--resume"]

    def train(name: str, kills: list[dict[str, Any]]) -> float:
        place = folder / name
        place.mkdir(exist_ok=True)
        outcome = launch(place, arguments.ranks, [*command, "--set", f"run.dir={place}/run"], kills, restarts=len(kills))
        if not outcome.succeeded:
            raise UserError(f"{name}: the job failed with {outcome.codes}:\n{outcome.said}")
        return outcome.seconds

    seconds = train("undisturbed", [])
    print(f"undisturbed: {seconds:.1f} s, {arguments.ranks} ranks, {check(folder / 'undisturbed', folder, arguments.epochs)}", flush=True)
    dice, done, rounds, hit = random.Random(arguments.seed), 0, 0, Counter[tuple[str, str]]()
    while done < arguments.kills:
        rounds += 1
        name = f"round-{rounds}"
        took = train(name, kills_of(done, min(arguments.kills - done, KILLS_A_ROUND), arguments.ranks, dice))
        killed = read_kills(folder / name)
        if not killed:
            raise UserError(f"{name}: the run ended before a kill; give it more --epochs")
        print(f"round {rounds}:", flush=True)
        for kill in killed:
            hit[kill["point"], kill["target"]] += 1
            was = "; ".join(f"rank {rank} {at}" for rank, at in kill["was"].items())
            print(f"  killed {kill['target']:<12} in {kill['point']:<20} while {was}")
        done += len(killed)
        print(f"  {len(killed)} kills, {took:.1f} s: {check(folder / name, folder, arguments.epochs)}", flush=True)
    for point in [*POINTS, START[0]]:
        print(f"in {point}: " + ", ".join(f"{target} {hit[point, target]}" for target in TARGETS))
    print(f"sound: {done} kills in {rounds} rounds; all weights, states and figures equal, no row lost or twice")
    return 0


def read_kills(place: Path) -> list[dict[str, Any]]:
    path = place / "kills.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check(place: Path, folder: Path, epochs: int) -> str:
    """Compares a finished run with the undisturbed one and counts its rows.

    Raises:
        UserError: something is not equal.
    """
    from dmoe.checkpoint import inspect as look
    from dmoe.checkpoint.of_run import newest
    from dmoe.testing.elastic import used_rows

    lines, differ = look.diff(newest(f"{folder}/undisturbed/run"), newest(f"{place}/run"), 0.0)
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
    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    clock = ("samples_per_second", "eval_samples_per_second")
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/soak.py", main))
