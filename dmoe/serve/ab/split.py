"""Assignment of units (users) to the arms of an A/B test. It depends only on the salt and the shares of the split, so it is the same on
every machine and offline.

The hash of a unit selects one of 10,000 buckets. Each arm owns a number of buckets in proportion to its share. With n arms, arm i (from 0)
takes the buckets i, i + n, i + 2n, ..., and when these are used up, free buckets from the last one on. An arm whose share grows keeps its
buckets and takes free ones. No unit changes its arm if there are two arms, or if no arm has a share above 1/n.
"""

import os
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from dmoe.config.strict import Strict, Text, checked
from dmoe.config.yaml_files import read_mapping
from dmoe.data.prepare.split.split_rules import splitmix64
from dmoe.data.prepare.tokens.token_ids import hashes
from dmoe.storage.paths import join

BUCKETS = 10_000
OUTSIDE = ""
"""The arm name of a unit that is in no arm."""
MAX_ARMS = 20
ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Name = Annotated[Text, Field(min_length=1, max_length=200)]


def _whole_buckets(share: float) -> float:
    if abs(share * BUCKETS - round(share * BUCKETS)) > 1e-6:
        raise ValueError(f"share {share:g}: expected a multiple of {1 / BUCKETS:g}")
    return share


class UnitSource(Strict):
    """Where a request says whose it is: a column of its rows, a header, or a field of its JSON (of KServe's `parameters`)."""

    column: Name | None = None
    header: Name | None = None
    field: Name | None = None

    @model_validator(mode="after")
    def _one(self) -> "UnitSource":
        if sum(one is not None for one in (self.column, self.header, self.field)) != 1:
            raise ValueError("expected one of column, header and field")
        return self

    @property
    def told(self) -> str:
        return next(f"{kind} '{name}'" for kind, name in self if name is not None)


class Arm(Strict):
    """`scorer`: a scorer's folder or a pointer file, beside the split's file where relative."""

    scorer: Name
    share: Annotated[float, Field(ge=0, le=1), AfterValidator(_whole_buckets)]

    @property
    def buckets(self) -> int:
        return round(self.share * BUCKETS)


class Shadow(Strict):
    """A scorer whose scores are logged and never answered; rows beyond `queue_rows` that wait for it are not scored by it."""

    scorer: Name
    queue_rows: int = Field(8192, ge=1)


class ExposureOptions(Strict):
    """A file is finished once it has `rows`, or its first row is `seconds` old."""

    folder: Name
    rows: int = Field(50_000, ge=1, le=10_000_000)
    seconds: float = Field(60.0, gt=0, le=86_400)


class Split(Strict):
    """The content of a split's file.

    Attributes:
        test: its name; exposures carry it.
        salt: another salt is another assignment, independent of this one.
        control: the arm that the others are compared with. Its scorer also answers units that are in no arm.
        missing_unit: a request without a unit is refused (422), or answered by the control's scorer; it is in no arm then.
    """

    test: Name
    salt: Name
    unit: UnitSource
    arms: dict[ArmName, Arm] = Field(min_length=1, max_length=MAX_ARMS)
    control: ArmName
    shadow: Shadow | None = None
    missing_unit: Literal["refuse", "control"] = "refuse"
    exposures: ExposureOptions

    @model_validator(mode="after")
    def _fits(self) -> "Split":
        if self.control not in self.arms:
            raise ValueError(f"control: no arm '{self.control}', there are {', '.join(self.arms)}")
        if (total := sum(arm.buckets for arm in self.arms.values())) > BUCKETS:
            raise ValueError(f"arms: the shares add up to {total / BUCKETS:g}, at most 1 is there")
        return self


def read_split(path: str, asked_by: str) -> Split:
    """Reads a split from a YAML file. Relative paths in the file are resolved against its folder.

    Raises:
        UserError: the file is missing, or a key or value is wrong; names it.
    """
    split = checked(Split.model_validate, read_mapping(path, asked_by, "split", "keys such as test, salt and arms"), path)
    folder = os.path.dirname(path)

    def beside(name: str) -> str:
        return name if os.path.isabs(name) or "://" in name or not folder else join(folder, name)

    return split.model_copy(
        update={
            "arms": {name: arm.model_copy(update={"scorer": beside(arm.scorer)}) for name, arm in split.arms.items()},
            "shadow": split.shadow and split.shadow.model_copy(update={"scorer": beside(split.shadow.scorer)}),
            "exposures": split.exposures.model_copy(update={"folder": beside(split.exposures.folder)}),
        }
    )


def bucket_owners(bucket_counts: Sequence[int]) -> NDArray[np.int16]:
    """The number of the arm that owns each bucket, [10,000]; -1 if no arm owns it.

    Args:
        bucket_counts: number of buckets of each arm; the sum is at most 10,000.
    """
    owner = np.full(BUCKETS, -1, np.int16)
    for arm, count in enumerate(bucket_counts):
        owner[arm :: len(bucket_counts)][:count] = arm
    for arm, count in enumerate(bucket_counts):
        if (more := count - int((owner == arm).sum())) > 0:
            owner[np.flatnonzero(owner < 0)[::-1][:more]] = arm
    return owner


def buckets_of(salt: str, units: Sequence[str]) -> NDArray[np.int64]:
    """The bucket of each unit, [units]: splitmix64(h(unit) xor h(salt)) mod 10,000. h is FNV-1a of the UTF-8 bytes, followed by the
    finalizer of splitmix64."""
    hash_of = hashes(pa.array([unit.encode() for unit in (salt, *units)], pa.large_binary()))
    return (splitmix64(hash_of[1:] ^ hash_of[:1]) % np.uint64(BUCKETS)).astype(np.int64)


class Assigner:
    """Assigns units to the arms of a split.

    Example:
        >>> arms = {"control": Arm(scorer="a", share=0.5), "new": Arm(scorer="b", share=0.5)}
        >>> split = Split(test="t", salt="t", unit={"column": "user"}, arms=arms, control="control", exposures={"folder": "e"})
        >>> Assigner(split).arms_of(["u1", "u2", "u3"])
        ['new', 'control', 'control']
    """

    def __init__(self, split: Split) -> None:
        self.salt, self.names = split.salt, list(split.arms)
        self.owner = bucket_owners([arm.buckets for arm in split.arms.values()])

    def arms_of(self, units: Sequence[str]) -> list[str]:
        """The arm name of each unit; `OUTSIDE` if it is in no arm."""
        named = [*self.names, OUTSIDE]
        return [named[arm] for arm in self.owner[buckets_of(self.salt, units)]]

    def moved_from(self, before: "Assigner") -> int:
        """The number of buckets that had an arm before and now have another one or none; all 10,000 if the salt differs."""
        if self.salt != before.salt:
            return BUCKETS
        now, then = (np.array([*one.names, OUTSIDE])[one.owner] for one in (self, before))
        return int(((then != OUTSIDE) & (now != then)).sum())
