"""Texts that users give: which names are accepted, what they are called on disk, and how they are shown on a screen or in a CSV file."""

import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import TextIO

CONTROL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that a terminal acts on, or that cannot be encoded: controls, formats, lone surrogates, line separators."""
JOINERS = "\u200c\u200d"
"""Format characters that Persian words and emoji need; they have no effect on what stands around them."""
MAX_FILE_BYTES = 243
"""Of a file's name without its suffix: file systems allow 255 bytes, and the longest suffix is `.safetensors`."""
MAX_SHOWN = 120
"""Characters of a name that a message quotes."""
LABEL, RESERVED = "label", "@"
"""Columns of a shard that are no features: the label, and those that begin so: @weight, @group."""
NO_SPLITS = ("vocabulary", "rejects")
"""Folders beside those of the splits in a data set."""
_stderr_writer: Callable[[str], None] | None = None
_SPLIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_UNSAFE = re.compile(r"/|%(?=2F|25|2E|7E)|^\.(?=\.?$)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, keep: str = "") -> str:
    """The text with every character that a terminal would act on as an escape such as `\\x1b`, but for those of `keep`."""
    if text.isprintable():
        return text
    return "".join(one if one in keep or _is_shown(one) else one.encode("unicode_escape").decode() for one in text)


def _is_shown(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character) not in CONTROL


def show(text: str, file: TextIO | None = None) -> None:
    """Prints lines that hold texts of users, such as names and paths; on stderr as `dmoe.terminal.tell` does."""
    if file is not None and file is sys.stderr and _stderr_writer is not None:
        _stderr_writer(text)
    else:
        print(printable(text, keep="\n"), file=file, flush=True)


def quoted(name: str) -> str:
    """A name as a message has it: in quotes, printable, cut where it is long."""
    return f"'{printable(name if len(name) <= MAX_SHOWN else f'{name[:MAX_SHOWN]}...')}'"


def write_stderr_by(writer: Callable[[str], None]) -> None:
    """Has `show` write on stderr so: `dmoe.terminal`, which needs this module, asks for it."""
    global _stderr_writer
    _stderr_writer = writer


def clip(text: str, width: int) -> str:
    """At most `width` characters; what is left out of the middle is marked."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def check_text(text: str) -> str:
    """The text, where a screen shows it as it is.

    Raises:
        ValueError: it has a control character.
    """
    if printable(text) != text:
        raise ValueError(f"{quoted(text)} has a control character")
    return text


def check_feature(name: str) -> str:
    """The name, where it can be a feature's: any text that can be shown, but for the names of the columns that every shard has.

    Raises:
        ValueError: it cannot.
    """
    if not name or printable(name) != name:
        raise ValueError(f"a feature cannot be named {quoted(name)}: expected text without control characters")
    if name == LABEL or name.startswith(RESERVED):
        raise ValueError(
            f"a feature cannot be named {quoted(name)}, as other columns of a shard are ({LABEL}, {RESERVED}weight, ...);"
            " give it another name, and its column beside that as `column`"
        )
    return name


def check_split(name: str) -> str:
    """The name, where it can be a split's: a folder of the data set is named so.

    Raises:
        ValueError: it cannot.
    """
    if not _SPLIT.fullmatch(name) or name in NO_SPLITS:
        raise ValueError(f"a split cannot be named {quoted(name)}: expected letters, digits, '_' and '-', and not {' or '.join(NO_SPLITS)}")
    return name


def first_twice(names: Iterable[str]) -> str | None:
    """The first name that was there before, or None."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def file_name(name: str) -> str:
    """What a file that belongs to a feature (or to anything else that a user named) is called, without its suffix.

    The name itself, but for `/`, which becomes `%2F`, and what would be read as such an escape; different names give different files.
    A name that is too long for a file system is cut, and ends in its SHA-256 behind `%7E`, which no other name has.
    """
    safe = os.fsencode(_UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", name))
    if len(safe) <= MAX_FILE_BYTES:
        return os.fsdecode(safe)
    ending = f"%7E{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}"
    return safe[: MAX_FILE_BYTES - len(ending)].decode(errors="ignore") + ending


def cell(text: str) -> str:
    """A CSV cell of text that a spreadsheet shows and does not compute: behind a `'` where it would begin a formula."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) and text != "-" else text


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key that puts day_2 before day_10."""
    parts = re.split(r"([0-9]+)", text)
    return [(1, part) if (number := whole_number(part)) is None else (0, number) for part in parts]


def whole_number(text: str) -> int | None:
    """The number that 1 to 18 ASCII digits write, else None: `isdigit` takes ² too, and `int` refuses thousands of digits.

    Examples:
        >>> whole_number("007"), whole_number("²"), whole_number("-1")
        (7, None, None)
    """
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
