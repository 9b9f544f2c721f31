"""What leaves the product is a number: NaN and infinity are refused by name."""

import math

import numpy as np

from dmoe.errors import UserError


def require_finite(values_N: np.ndarray, what: str, first_row: int = 0, advice: str = "") -> np.ndarray:
    """The values, all of which are finite.

    Args:
        values_N: numbers of N rows, [N] or [N, ...].
        what: whose values they are and where, which begins the message, such as `part-00000.parquet: price`.
        first_row: number of the first of the rows.
        advice: what to do, which ends the message.

    Raises:
        UserError: names the first row with a value that is not finite, the value, and how many rows have one.
    """
    finite = np.isfinite(values_N)
    if not finite.all():
        rows, finite = np.atleast_1d(values_N), np.atleast_1d(finite)
        bad = np.flatnonzero(~finite.reshape(len(rows), -1).all(1))
        first, others = int(bad[0]), f" ({len(bad):,} such rows of {len(rows):,})" if len(bad) > 1 else ""
        value = np.ravel(rows[first])[~np.ravel(finite[first])][0]
        message = f"{what} is {value} at row {first_row + first:,}{others}, expected a finite number"
        raise UserError(f"{message}; {advice}" if advice else message)
    return values_N


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    # Their squares' sum is finite almost always, and then one call of numpy tells.
    return math.isfinite(np.vdot(values, values)) or bool(np.isfinite(values).all())
