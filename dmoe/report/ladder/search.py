"""A hyperparameter search with a fixed budget for the variants of a ladder: successive halving over seeds and epochs.

Every variant, including controls, has the same numbers of trials and rounds. Trial n of any variant draws the same value for a key. Trial 0
is the variant without changes. Runs of the search are tested on the validation split; the test split is not read until the resulting ladder
is trained.
"""

import math
import os
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field, model_validator

from dmoe.config.config import Config, dump_config
from dmoe.config.shipped import find_config
from dmoe.config.strict import Strict, Text, checked
from dmoe.config.yaml_files import dump_yaml, laid_over, read_extended
from dmoe.errors import UserError, nearest, one_line
from dmoe.json_text import format_json
from dmoe.report.ladder.runner import Job, check_same, train_all
from dmoe.report.ladder.spec import LadderSpec, load_spec, resolve
from dmoe.report.runs import load_figures
from dmoe.storage.paths import PATHS, inside, join, write_text

FIRST_SEED = 1000
"""First seed of the runs of a search. The seeds of a ladder begin at 0, so its runs have other seeds."""
Value = int | float | str


class Range(Strict):
    """Numbers from `low` to `high`, drawn evenly, or, with `log`, evenly in their logarithm."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("expected low below high, and with log both above 0")
        return self


class Round(Strict):
    """How each candidate that is left is trained: with so many seeds, for so many epochs."""

    seeds: int = Field(1, ge=1, le=100)
    epochs: int = Field(1, ge=1)


class Searched(Strict):
    """A variant; `without` names keys of the space that are not its own to choose, such as alpha without de-correlation."""

    without: list[str] = Field([])


class SearchSpec(Strict):
    """What `dmoe report search --config` reads.

    Attributes:
        ladder: file of the ladder, relative to this one.
        space: key of a config -> its choices, or a range.
        trials: candidates of each variant in the first round.
        keep: share of the candidates that goes on to the next round.
    """

    title: Text = "Search"
    ladder: str
    variants: dict[str, Searched] = Field(min_length=2, max_length=100)
    space: dict[str, list[Value] | Range] = Field(min_length=1, max_length=100)
    trials: int = Field(9, ge=2, le=10_000)
    rounds: list[Round] = Field([Round()], min_length=1, max_length=20)
    keep: float = Field(1 / 3, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _keys_are_of_the_space(self) -> "SearchSpec":
        for name, one in self.variants.items():
            for key in one.without:
                if key not in self.space:
                    raise ValueError(f"variants.{name}.without: the space has no '{key}'{nearest(key, self.space)}")
        if empty := [key for key, values in self.space.items() if values == []]:
            raise ValueError(f"space.{empty[0]}: no choice")
        return self

    def candidate(self, variant: str, trial: int) -> dict[str, Value]:
        """The settings of trial n of a variant. They depend only on the file."""
        if trial == 0:
            return {}
        keys = [key for key in self.space if key not in self.variants[variant].without]
        return {key: _drawn(self.space[key], random.Random(f"{self.seed}/{key}/{trial}")) for key in keys}


def _drawn(values: list[Value] | Range, draw: random.Random) -> Value:
    if not isinstance(values, Range):
        return draw.choice(values)
    low, high = (math.log(end) if values.log else end for end in (values.low, values.high))
    found = draw.uniform(low, high)
    return float(f"{math.exp(found) if values.log else found:.4g}")


def load_search(path: str) -> SearchSpec:
    """Reads the file of a search.

    Raises:
        UserError: no such file, not YAML, an unknown key or variant; the message names it.
    """
    path = find_config(path)
    tree = read_extended(path, f"--config {path}", "search", "keys such as 'ladder:' and 'space:'", names=["ladder"])
    return checked(SearchSpec.model_validate, tree, path)


def run_search(path: str, output: str, overrides: list[str], workers: int, threads: int, say: Callable[[str], None]) -> int:
    """Trains the unfinished runs, round by round.

    Writes OUTPUT/search.json with all trials, and OUTPUT/best.yaml, a ladder of the best trials.

    Returns:
        0, or 2 if a run failed; its candidate is then dropped.

    Raises:
        UserError: a mistake in the file, or a run in `output` that was trained with other settings.
    """
    spec = load_search(path)
    ladder = load_spec(spec.ladder)
    for name in spec.variants:
        if name not in ladder.variants:
            raise UserError(f"{path}: variants: {spec.ladder} has no variant '{one_line(name)}'{nearest(name, ladder.variants)}")
        if ladder.variants[name].teacher:
            raise UserError(f"{path}: variants.{name}: is a student; search its teacher")
    left = {name: list(range(spec.trials)) for name in spec.variants}
    told: list[dict[str, Any]] = []
    code = 0
    for number, one in enumerate(spec.rounds, 1):
        jobs = {
            (name, trial, seed): _job(spec, ladder, overrides, join(output, f"round-{number}"), one, name, trial, seed)
            for seed in range(FIRST_SEED, FIRST_SEED + one.seeds)
            for name, trials in left.items()
            for trial in trials
        }
        say(f"round {number}: {one.seeds} seed(s), {one.epochs} epoch(s)")
        code = 2 if train_all(list(jobs.values()), workers, threads, say) else code
        for name, trials in left.items():
            scores = {trial: _score([job for (of, n, _), job in jobs.items() if (of, n) == (name, trial)]) for trial in trials}
            sound = sorted((trial for trial in trials if scores[trial] is not None), key=lambda trial: (-(scores[trial] or 0.0), trial))
            if not sound:
                raise UserError(f"{name}: no trial of round {number} has an AUC; the logs beside the runs in {output} say why")
            last = number == len(spec.rounds)
            left[name] = sound[: 1 if last else max(1, math.ceil(len(sound) * spec.keep))]
            told += [
                {"round": number, "variant": name, "trial": trial, "auc": scores[trial], "set": spec.candidate(name, trial)}
                for trial in trials
            ]
            as_it_stands = f", trial 0 {scores[0]:.5f}" if 0 in sound else ""
            say(f"{name}: trial {sound[0]} has {scores[sound[0]]:.5f}{as_it_stands}; on with {', '.join(map(str, left[name]))}")
    best = {name: trials[0] for name, trials in left.items()}
    PATHS.mkdirs(output)
    write_text(inside(output, "search.json"), format_json({"best": best, "trials": told}, indent=1) + "\n")
    write_text(inside(output, "best.yaml"), dump_yaml(_ladder_of(spec, ladder, best)))
    say(f"the winners, as a ladder: {join(output, 'best.yaml')}")
    return code


def _job(spec: SearchSpec, ladder: LadderSpec, overrides: Sequence[str], output: str, how: Round, name: str, trial: int, seed: int) -> Job:
    """Makes a run of the search, and writes its config."""
    run = inside(output, name, f"trial-{trial:04d}", f"seed-{seed}")
    given = [f"{key}={format_json(value)}" for key, value in spec.candidate(name, trial).items()]
    fixed = [f"train.epochs={how.epochs}", "metrics.abundance=false"]
    config = resolve(ladder, spec.ladder, name, seed, [*overrides, *given, *fixed], run)
    config = _untested(config)
    check_same(config, run)
    path = inside(output, name, f"trial-{trial:04d}", f"seed-{seed}.yaml")
    PATHS.mkdirs(path.rpartition("/")[0])
    write_text(path, dump_config(config))
    return Job(f"{name}, trial {trial}", seed, path, run)


def _untested(config: Config) -> Config:
    """Replaces the test split by the validation split, since a search must not use the test split."""
    return config.model_copy(update={"data": config.data.model_copy(update={"test_split": config.data.validation_split})})


def _score(jobs: Sequence[Job]) -> float | None:
    """The mean validation AUC over seeds. None if a run has no AUC."""
    found = [load_figures(inside(job.run, "metrics.json"))["auc"] if job.finished else None for job in jobs]
    known = [auc for auc in found if auc is not None]
    return statistics.fmean(known) if len(known) == len(found) else None


def _ladder_of(spec: SearchSpec, ladder: LadderSpec, best: dict[str, int]) -> dict[str, Any]:
    """A ladder of the variants with their best settings, and those controls of the original ladder that compare them."""
    rungs = [name for name in ladder.rungs if name in best]
    found = {name: laid_over(ladder.tree(name), _tree(spec.candidate(name, trial))) for name, trial in best.items()}
    variants = {name: {"label": ladder.label(name), "set": tree} for name, tree in found.items()}
    controls = [one.model_dump(exclude_none=True) for one in ladder.controls if {one.variant, one.against} <= best.keys()]
    return {
        "title": f"{ladder.title}, searched",
        # Absolute, since best.yaml may be in any folder.
        "base": os.path.abspath(ladder.base),
        "variants": variants,
        "rungs": rungs if len(rungs) > 1 else list(best),
        "controls": controls,
    }


def _tree(flat: dict[str, Value]) -> dict[str, Any]:
    """Converts keys such as `a.b` into nested dicts."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        for part in reversed(key.split(".")):
            value = {part: value}  # type: ignore[assignment]
        tree = laid_over(tree, value)
    return tree
