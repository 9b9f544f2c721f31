"""The contenders, a file each with `build(case, rank) -> Built`."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Built:
    """A contender, ready: one training step of its rank a call, and how many weights all ranks train."""

    step: Callable[[], object]
    table_parameters: int
    dense_parameters: int
