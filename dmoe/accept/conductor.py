"""Runs the stages one after another, each within its time, and goes on after one that failed."""

import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmoe.accept.finding import FAILED, HELD, SKIPPED, Failed, Finding, Notes, Skipped
from dmoe.accept.rank import is_there
from dmoe.accept.rank import told as in_words
from dmoe.accept.ranks import Ranks
from dmoe.errors import UserError, nearest

MINUTES = {"dense": 5.0, "quick": 5.0, "full": 20.0}
"""Of all stages of a level together."""
NOT_INSTALLED = re.compile(r"ModuleNotFoundError: No module named '((?!torch\b|dmoe\b)\w+)")
"""On a rank: what a machine with PyTorch alone lacks is no failure at level `dense`."""
MOST_TOLD = 5
"""Of a stage's problems."""


@dataclass(frozen=True)
class Stage:
    """A part of an acceptance.

    Attributes:
        held, failed: what it means for the user where it held, and where it failed.
        run: does it; writes figures and problems into its notes, raises Failed or Skipped.
        seconds: its bound at level `quick`; three times that at `full`.
        torch_alone: belongs to level `dense`: needs neither TorchRec nor FBGEMM.
    """

    name: str
    held: str
    failed: str
    run: Callable[["Job", Notes], None]
    seconds: float
    torch_alone: bool = False


@dataclass(frozen=True)
class Job:
    """What a stage is given.

    Attributes:
        ranks: to run functions on.
        level: `dense`, `quick` or `full`.
        folder: that all hosts see, empty where there is none.
        hosts: how many.
        on_gpu: the ranks have a GPU each.
    """

    ranks: Ranks
    level: str
    folder: str
    hosts: int
    on_gpu: bool

    @property
    def full(self) -> bool:
        return self.level == "full"

    @property
    def shared(self) -> str:
        """The folder.

        Raises:
            Skipped: there is none.
            Failed: a host does not see it.
        """
        if not self.folder:
            raise Skipped("the hosts share no folder that is known here: give --folder on a disk that all of them see")
        if self.hosts > 1:
            seen = self.ranks.kept.get("seen") or self.ranks.run(is_there, self.folder)
            self.ranks.kept["seen"] = seen
            if not all(seen):
                raise Failed(f"--folder: rank {seen.index(False)} does not see it; give one on a disk that all hosts see")
        return self.folder


def chosen(stages: Sequence[Stage], level: str, only: Sequence[str]) -> list[Stage]:
    """The stages of a level, or of those the named ones.

    Raises:
        UserError: a name that is no stage's of this level.
    """
    found = [stage for stage in stages if level != "dense" or stage.torch_alone]
    names = [stage.name for stage in found]
    for name in only:
        if name not in names:
            raise UserError(f"--only {name}: no such stage at level {level}{nearest(name, names)}")
    return [stage for stage in found if not only or stage.name in only]


def conduct(stages: Sequence[Stage], job: Job, minutes: float, told: Callable[[Finding], None]) -> list[Finding]:
    """Runs all stages.

    Args:
        minutes: for all of them; the bounds of single ones grow and shrink with it.
        told: hears of each as it ends.
    """
    began, findings = time.monotonic(), []
    ends = began + 60 * minutes
    scale = minutes / MINUTES[job.level] * (3.0 if job.full else 1.0)
    for stage in stages:
        bound = min(stage.seconds * scale, ends - time.monotonic())
        findings.append(_finding(stage, job, bound, f"the {minutes:g} minutes of this level were over before it"))
        told(findings[-1])
    return findings


def _finding(stage: Stage, job: Job, bound: float, too_late: str) -> Finding:
    began, notes = time.monotonic(), Notes()
    job.ranks.until = began + bound
    verdict, reason = HELD, ""
    try:
        if bound < 1:
            raise Failed(too_late)
        stage.run(job, notes)
    except Skipped as error:
        verdict, reason = SKIPPED, str(error)
    except (Failed, UserError) as error:
        absent = NOT_INSTALLED.search(str(error)) if job.level == "dense" else None
        verdict, reason = (SKIPPED, f"{absent[1]} is not installed") if absent else (FAILED, str(error))
    except Exception as error:
        # A fault of the stage's own must not keep the others from being run.
        verdict, reason = FAILED, in_words(error)
    if notes.problems:
        # What was seen first is what led to the end, where the stage then ended.
        more = len(notes.problems) - MOST_TOLD
        told = [*notes.problems[:MOST_TOLD], *[f"and {more} more"] * (more > 0), *[reason] * bool(reason)]
        verdict, reason = FAILED, "; ".join(told)
    meaning = {HELD: stage.held, FAILED: stage.failed, SKIPPED: f"Nothing is known of this: {stage.held[0].lower()}{stage.held[1:]}"}
    finding = Finding(stage.name, verdict, meaning[verdict], reason, tuple(notes.figures))
    return replace(finding, seconds=time.monotonic() - began, bound=bound)


def about(machine: dict[str, Any], job: Job, version: str) -> dict[str, Any]:
    """What a report says of where it was made, without a name that tells the machine."""
    return {
        "dmoe": version,
        "level": job.level,
        "ranks": job.ranks.size,
        "hosts": job.hosts,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **machine,
    }
