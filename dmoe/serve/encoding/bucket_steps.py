"""Bucket numbers of integers as steps, which compiled code can search."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.buckets import Buckets
from dmoe.data.prepare.tokens.coded_column import INTEGER_LIMIT


class Steps(NamedTuple):
    """The bucket number of an integer v is `least` plus the number of steps that are at most v. Below the first step, it is v itself if
    `own`."""

    steps: NDArray[np.int64]
    least: int
    own: bool


def steps_of(buckets: Buckets) -> Steps:
    """The steps of `Buckets.of_whole`, which never falls as v grows: each is found by bisection.

    Examples:
        >>> from dmoe.data.prepare.schema import Bucket
        >>> steps_of(Buckets(Bucket(edges=[0.5, 2.0]), np.array([0.5, 2.0]))).steps.tolist()
        [1, 2]
    """
    own = buckets.bucket.formula == "log_squared"
    # Integers up to 2 are their own log_squared bucket.
    lowest = 3 if own else -INTEGER_LIMIT
    least, most = buckets.of_whole(np.array([lowest, INTEGER_LIMIT], np.int32)).tolist()
    number = np.arange(least if own else least + 1, most + 1)
    low, high = np.full(len(number), lowest - 1), np.full(len(number), INTEGER_LIMIT)
    while len(number) and (high - low).max() > 1:
        middle = (low + high) // 2
        above = buckets.of_whole(middle.astype(np.int32)) >= number
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return Steps(high, least - 1 if own else least, own)
