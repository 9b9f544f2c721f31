"""Formats figures, differences and intervals for tables and sentences."""

import math

from dmoe.report.statistics import Interval


def signed(value: float, digits: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:+.{digits}f}"


def plain(value: float, digits: int) -> str:
    """Formats a figure; `-` for NaN."""
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def told(interval: Interval, digits: int = 4) -> str:
    """Formats a difference with its interval."""
    if interval.low is None or interval.high is None:
        return f"{signed(interval.mean, digits)} [no interval]"
    return f"{signed(interval.mean, digits)} [{signed(interval.low, digits)}, {signed(interval.high, digits)}]"


def level(interval: Interval, digits: int = 4) -> str:
    """Formats a mean and the half-width of its interval."""
    return plain(interval.mean, digits) + ("" if interval.half is None else f" ± {interval.half:.{digits}f}")
