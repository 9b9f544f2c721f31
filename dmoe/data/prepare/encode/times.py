"""Parses a column of times by a strptime format, with the results of Python's `datetime.strptime` in the C locale.

No part of a format is ignored: a directive that strptime would ignore is refused when the format is read. A day that does not exist
(30 February), or has another weekday than `%a` says, is malformed.

Shapes: N texts of a column.
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

SECONDS_A_DAY = 86400
YEAR_5000 = 95_617_584_000
"""In seconds since 1970. Milliseconds of any time after January 1973, read as seconds, are later."""
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SHORT_MONTHS, SHORT_WEEKDAYS = tuple(name[:3] for name in MONTHS), tuple(name[:3] for name in WEEKDAYS)

SPACES = r"[\t-\r\x1c-\x20]+"
PATTERNS = {
    "Y": r"\d\d\d\d",
    "y": r"\d\d",
    "m": r"1[0-2]|0[1-9]|[1-9]",
    "B": "|".join(sorted(MONTHS, key=len, reverse=True)),
    "b": "|".join(SHORT_MONTHS),
    "d": r"3[0-1]|[1-2]\d|0[1-9]|[1-9]| [1-9]",
    "j": r"36[0-6]|3[0-5]\d|[1-2]\d\d|0[1-9]\d|00[1-9]|[1-9]\d|0[1-9]|[1-9]",
    "H": r"2[0-3]|[0-1]\d|\d",
    "I": r"1[0-2]|0[1-9]|[1-9]",
    "p": "am|pm",
    "M": r"[0-5]\d|\d",
    "S": r"6[0-1]|[0-5]\d|\d",
    "f": r"\d{1,6}",
    "z": r"[+-]\d\d:?[0-5]\d(?::?[0-5]\d(?:\.\d{1,6})?)?|(?-i:Z)",
    "A": "|".join(sorted(WEEKDAYS, key=len, reverse=True)),
    "a": "|".join(SHORT_WEEKDAYS),
}
"""The pattern of each directive; alternatives are in the order in which `datetime.strptime` tries them."""
ALIASES = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y", "e": "%d", "h": "%b"}
"""Abbreviations of the C library that Python's strptime does not have."""
FIXED = {"Y": (4, 0, 9999), "y": (2, 0, 99), "m": (2, 1, 12), "d": (2, 1, 31), "H": (2, 0, 23), "M": (2, 0, 59), "S": (2, 0, 61)}
"""Directives that are usually written with a fixed number of digits: (digits, lowest, highest number)."""
TELLS = {"year": "Yy", "month": "mbBj", "day": "dj", "hour": "HI", "minute": "M", "second": "S", "fraction": "f", "zone": "z"}
TELLS |= {"weekday": "aA", "half of the day": "p"}


@dataclass(frozen=True)
class TimeFormat:
    """A checked format.

    Attributes:
        text: the format.
        parts: literal text, letter of a directive, literal text, ..., literal text.
    """

    text: str
    parts: tuple[str, ...]

    @property
    def directives(self) -> tuple[str, ...]:
        return self.parts[1::2]

    @cached_property
    def pattern(self) -> str:
        """A regular expression for RE2. The group `rest` gets what follows the match. It must be empty, but it does not influence the
        match, as in Python."""
        literal = [re.sub(rf"(?:\\?{SPACES})+", lambda _: SPACES, re.escape(text)) for text in self.parts[::2]]
        named = [f"(?P<{letter}>{PATTERNS[letter]})" for letter in self.directives]
        return rf"\A(?i)(?s:{''.join(a + b for a, b in zip(literal, [*named, ''], strict=True))}(?P<rest>.*))\z"


@lru_cache(maxsize=64)
def parse_format(text: str) -> TimeFormat:
    """Reads and checks a format.

    Raises:
        ValueError: a directive is unknown or would be ignored, two directives give the same thing, or there is none; names the directive.
    """
    expanded = re.sub(r"%(%|[FTRDeh])", lambda found: ALIASES.get(found[1], found[0]), text)
    parts = re.split(r"%(-?[^%]|%|\Z)", expanded, flags=re.DOTALL)
    merged = [parts[0]]
    for letter, literal in zip(parts[1::2], parts[2::2], strict=True):
        letter = letter.removeprefix("-") if letter[1:] in ("d", "m", "H", "I", "M", "S", "j", "y") else letter
        if letter == "%":
            merged[-1] += "%" + literal
            continue
        if letter == "Z":
            raise ValueError(
                "%Z, the name of a time zone, would be ignored; give offsets as %z, or a name that never changes, such as UTC, as it is"
            )
        if letter not in PATTERNS:
            raise ValueError(f"%{letter} is not read; the directives are {' '.join('%' + one for one in sorted(PATTERNS))}")
        merged += [letter, literal]
    directives = merged[1::2]
    if not directives:
        raise ValueError(f"'{text}' has no directive, such as %Y; without one it is unix (seconds) or unix_ms")
    for what, letters in TELLS.items():
        if len(same := [f"%{one}" for one in directives if one in letters]) > 1:
            raise ValueError(f"{' and '.join(same)} tell the {what} twice, so one would be ignored")
    if "p" in directives and "I" not in directives:
        raise ValueError("%p would be ignored without %I, the hour of 12")
    return TimeFormat(text, tuple(merged))


def parse_times(texts: "pa.Array", format: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(seconds since 1970 [N], UTC where no %z says otherwise, 0.0 where there is no time; whether each is a time [N]).

    Args:
        texts: large_string, null where there is none.
        format: of `parse_format`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    known = parse_format(format)
    fixed, columns, ok_N = _fixed_numbers(texts, known), {}, np.ones(len(texts), bool)
    if not fixed:
        found = pc.extract_regex(texts, known.pattern)
        ok_N = _to_numpy(pc.equal(pc.struct_field(found, "rest"), ""), False)
        # If there is no match: 1 is a valid value of every field.
        columns = {letter: pc.fill_null(pc.struct_field(found, letter), "1") for letter in known.directives}

    def number(letter: str, default: int) -> NDArray[np.int64]:
        if letter in fixed:
            return fixed[letter]
        if letter not in columns:
            return np.full(len(texts), default, np.int64)
        return np.asarray(pc.ascii_ltrim_whitespace(columns[letter]).cast(pa.int64()).to_numpy())

    def named(letter: str, names: tuple[str, ...]) -> NDArray[np.int64]:
        place = pc.index_in(pc.ascii_lower(columns[letter]), pa.array(names, pa.large_string()))
        return np.asarray(pc.fill_null(place, 0).to_numpy()).astype(np.int64)

    year_N = number("Y", 1900)
    if "y" in known.directives:
        short_N = number("y", 0)
        year_N = short_N + np.where(short_N <= 68, 2000, 1900)
    ok_N &= year_N >= 1
    month_N = number("m", 1)
    for letter, names in (("b", SHORT_MONTHS), ("B", MONTHS)):
        month_N = named(letter, names) + 1 if letter in columns else month_N
    first_N, after_N = _first_day(year_N, month_N), _first_day(year_N, month_N + (12 if "j" in columns else 1))
    day_N = first_N + number("d", 1) - 1 + number("j", 1) - 1
    ok_N &= day_N < after_N
    for letter, names in (("a", SHORT_WEEKDAYS), ("A", WEEKDAYS)):
        if letter in columns:
            # 1970-01-01 was a Thursday.
            ok_N &= named(letter, names) == (day_N + 3) % 7
    hour_N = number("H", 0)
    if "I" in columns:
        afternoon_N = named("p", ("am", "pm")) if "p" in columns else 0
        hour_N = number("I", 0) % 12 + 12 * afternoon_N
    second_N = number("S", 0)
    ok_N &= second_N < 60
    seconds_N = (day_N * SECONDS_A_DAY + hour_N * 3600 + number("M", 0) * 60 + second_N).astype(np.float64)
    if "f" in columns:
        micros = pc.utf8_rpad(columns["f"], 6, "0").cast(pa.int64()).to_numpy()
        seconds_N = (seconds_N * 1e6 + micros) / 1e6
    if "z" in columns:
        coded = columns["z"].dictionary_encode()
        offsets = [_offset(one) for one in coded.dictionary.to_pylist()]
        codes_N = coded.indices.to_numpy()
        ok_N &= np.array([one is not None for one in offsets], bool)[codes_N]
        seconds_N = seconds_N - np.array([one or 0.0 for one in offsets])[codes_N]
    return np.where(ok_N, seconds_N, 0.0), ok_N


def _fixed_numbers(texts: "pa.Array", known: TimeFormat) -> dict[str, NDArray[np.int64]]:
    """The number of each directive if all texts have the digits of FIXED, which is many times as fast as the pattern; else nothing."""
    import pyarrow as pa

    if not (len(texts) and FIXED.keys() >= set(known.directives) and pa.types.is_large_string(texts.type)) or texts.null_count:
        return {}
    steps = [FIXED[part][0] if place % 2 else len(part.encode()) for place, part in enumerate(known.parts)]
    edges = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if (np.diff(edges) != sum(steps)).any():
        return {}
    byte_NW = np.frombuffer(texts.buffers()[2], np.uint8)[edges[0] : edges[-1]].reshape(len(texts), sum(steps))
    found, at = {}, 0
    for place, (part, step) in enumerate(zip(known.parts, steps, strict=True)):
        here_NW, at = byte_NW[:, at : at + step], at + step
        if place % 2 == 0:
            if (here_NW != np.frombuffer(part.encode(), np.uint8)).any():
                return {}
            continue
        digit_NW = here_NW.astype(np.int64) - ord("0")
        number_N = digit_NW @ 10 ** np.arange(step - 1, -1, -1)
        _, lowest, highest = FIXED[part]
        if digit_NW.min() < 0 or digit_NW.max() > 9 or number_N.min() < lowest or number_N.max() > highest:
            return {}
        found[part] = number_N
    return found


def _to_numpy(column: "pa.Array", null: bool) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    return np.array(pc.fill_null(column, null).to_numpy(zero_copy_only=False), bool)


def _first_day(year_N: NDArray[np.int64], month_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Days from 1970-01-01 to the first day of a month; months above 12 are in the next year."""
    months_N = ((year_N - 1970) * 12 + month_N - 1).astype("datetime64[M]")
    return months_N.astype("datetime64[D]").astype(np.int64)


def _offset(text: str) -> float | None:
    """Seconds that a zone is ahead of UTC; None if the text is no offset of less than a day."""
    if text == "Z":
        return 0.0
    found = re.fullmatch(r"([+-])(\d\d)(:?)(\d\d)(?:\3(\d\d)(?:\.(\d{1,6}))?)?", text)
    if not found:
        return None
    sign, hours, _, minutes, seconds, fraction = found.groups()
    size = int(hours) * 3600 + int(minutes) * 60 + int(seconds or 0) + int((fraction or "0").ljust(6, "0")) / 1e6
    return None if size >= SECONDS_A_DAY else -size if sign == "-" else size
