"""Runs the stages one after another, each with a time limit, and continues after a failed stage."""

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
"""Level -> time limit for all its stages together."""
NOT_INSTALLED = re.compile(r"ModuleNotFoundError: No module named '((?!torch\b|dmoe\b)\w+)")
"""Message of a rank about a missing package. At level `dense`, where only PyTorch is required, the stage is then skipped."""
MOST_TOLD = 5
"""Largest number of problems that are reported for a stage."""


@dataclass(frozen=True)
class Stage:
    """A part of an acceptance.

    Attributes:
        held, failed: what it means for the user if the stage held, or failed.
        run: runs the stage; adds figures and problems to the notes, and may raise Failed or Skipped.
        seconds: time limit at level `quick`; at `full` it is three times as long.
        torch_alone: the stage belongs to level `dense`, and needs neither TorchRec nor FBGEMM.
    """

    name: str
    held: str
    failed: str
    run: Callable[["Job", Notes], None]
    seconds: float
    torch_alone: bool = False


@dataclass(frozen=True)
class Job:
    """The environment of a stage.

    Attributes:
        ranks: runs functions on the ranks.
        level: `dense`, `quick` or `full`.
        folder: a folder that all hosts share; empty if there is none.
        hosts: number of hosts.
        on_gpu: whether each rank has a GPU.
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
        """The shared folder.

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
    """The stages of a level, or only those named in `only`.

    Raises:
        UserError: the level has no stage of a given name.
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
        minutes: time limit for all stages; those of single stages are scaled with it.
        told: called with the finding of each stage when it ends.
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
        # A bug in one stage must not prevent the other stages.
        verdict, reason = FAILED, in_words(error)
    if notes.problems:
        # Problems come before the exception that ended the stage, because they are probably its cause.
        more = len(notes.problems) - MOST_TOLD
        told = [*notes.problems[:MOST_TOLD], *[f"and {more} more"] * (more > 0), *[reason] * bool(reason)]
        verdict, reason = FAILED, "; ".join(told)
    meaning = {HELD: stage.held, FAILED: stage.failed, SKIPPED: f"Nothing is known of this: {stage.held[0].lower()}{stage.held[1:]}"}
    finding = Finding(stage.name, verdict, meaning[verdict], reason, tuple(notes.figures))
    return replace(finding, seconds=time.monotonic() - began, bound=bound)


def about(machine: dict[str, Any], job: Job, version: str) -> dict[str, Any]:
    """The description of the machine in a report."""
    return {
        "dmoe": version,
        "level": job.level,
        "ranks": job.ranks.size,
        "hosts": job.hosts,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **machine,
    }
