"""Finds the format of the values of a time column."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dmoe.data.prepare.encode.times import parse_times
from dmoe.data.prepare.propose.profile import Profile

DAYS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%m-%d-%Y",
    "%d-%b-%Y",
    "%d/%b/%Y",
    "%b %d %Y",
    "%d %b %Y",
)
CLOCKS = ("%H:%M:%S", "%H:%M:%S.%f", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%H")
WHOLE = (
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S UTC %Y",
    "%a %b %d %H:%M:%S GMT %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%a, %d %b %Y %H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S %z",
    "%Y-%m-%d %H:%M:%S UTC",
)
DIGITS = {14: ("%Y%m%d%H%M%S",), 12: ("%Y%m%d%H%M",), 10: ("%Y%m%d%H",), 8: ("%Y%m%d", "%y%m%d%H"), 6: ("%y%m%d",)}
"""Formats of times that consist of digits only, by the number of digits."""
LOOKS = r"^[A-Za-z]{0,9},? ?[A-Za-z]{0,9} ?\d{1,4}[-/. ][A-Za-z0-9]{1,9}[-/.: ]\d{1,4}"
"""Pattern of the start of a time that is not a number."""
FIRST, LAST = 788_918_400, 2_208_988_800
"""1995-01-01 and 2040-01-01 in seconds. The times of a log are between them."""
TRIED = 2000
"""A format is tried on so many values before it is tried on all."""


def find_format(one: Profile, named: bool) -> tuple[str, ...]:
    """The formats that read every value of a column. There are several if the values fit them all, and none if the column holds no times.

    Args:
        named: the name of the column says that it holds times, so a few values are enough.
    """
    if one.is_time:
        return ("unix",)
    if one.most_items or not one.distinct or one.given < 2:
        return ()
    if one.is_number:
        return _of_numbers(one, named)
    values = one.values
    lengths = pc.utf8_length(values)
    some = values.slice(0, TRIED)
    if pc.max(lengths).as_py() > 40 or pc.min(lengths).as_py() < 8 or not pc.all(pc.match_substring_regex(some, LOOKS)).as_py():
        return ()
    separators = ("T", " ") if pc.any(pc.match_substring(some, "T")).as_py() else (" ",)
    clocks = [
        f"{day}{separator}{clock}{zone}" for day in DAYS for separator in separators for clock in CLOCKS for zone in ("", "%z", " %z")
    ]
    candidates = [*DAYS, *clocks, *WHOLE]
    return tuple(format for format in candidates if _reads(some[:20], format) and _reads(some, format) and _reads(values, format))


def _reads(values: pa.Array, format: str) -> bool:
    seconds_N, ok_N = parse_times(values, format)
    return bool(ok_N.all()) and bool((seconds_N >= FIRST - 40 * 365 * 86400).all())


def _of_numbers(one: Profile, named: bool) -> tuple[str, ...]:
    low, high = one.numbers.min(), one.numbers.max()
    # Other columns hold large numbers too. A time column has many different ones.
    told = named or one.distinct > 0.5 * one.given
    for format, scale in (("unix", 1), ("unix_ms", 1000)):
        if low >= FIRST * scale and high < LAST * scale:
            return (format,) if told else ()
    if not one.is_canonical or (one.distinct < 5 and not named):
        return ()
    lengths = np.unique(pc.utf8_length(one.values).to_numpy())
    formats = DIGITS.get(int(lengths[0]), ()) if len(lengths) == 1 else ()
    found = [format for format in formats if _reads(one.values, format) and _within(one.values, format)]
    return tuple(found[:1]) if named or len(one.values) >= 5 else ()


def _within(values: pa.Array, format: str) -> bool:
    seconds_N, _ = parse_times(values, format)
    return bool((seconds_N >= FIRST).all() and (seconds_N < LAST).all())


def why_not(one: Profile) -> str:
    """Why a column that looks like times cannot be read as times; empty if it does not look like times."""
    if one.most_items or one.is_time or not one.distinct:
        return ""
    if one.is_number:
        for scale, unit in ((10**6, "microseconds"), (10**9, "nanoseconds")):
            if one.numbers.min() >= FIRST * scale and one.numbers.max() < LAST * scale:
                return f"looks like times in {unit}, expected seconds or milliseconds"
        return ""
    zones = pc.match_substring_regex(one.values.slice(0, 100), r"\d\d:\d\d:\d\d(\.\d+)? [A-Z]{3,4}( \d{4})?$")
    return "holds times with names of several zones, which are not read; write offsets such as +0900" if pc.all(zones).as_py() else ""


def hours_and_days(one: Profile, format: str) -> tuple[int, int]:
    """The number of different hours of the day, and of different weekdays, in a time column."""
    if one.is_time:
        seconds_N = one.values.cast(pa.timestamp("s", one.values.type.tz), safe=False).cast(pa.int64()).to_numpy()
    elif format in ("unix", "unix_ms"):
        seconds_N = one.numbers / (1000 if format == "unix_ms" else 1)
    else:
        seconds_N = parse_times(one.values, format)[0]
    return len(np.unique(seconds_N // 3600 % 24)), len(np.unique(seconds_N // 86400 % 7))
