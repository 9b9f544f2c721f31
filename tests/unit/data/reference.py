"""An independent reference of preprocessing in plain Python, written from the documented rules and not from dmoe's code."""

import math
import re
from collections import Counter
from fractions import Fraction

import numpy as np

MASK = 2**64 - 1
COLUMNS = [f"I{i}" for i in range(1, 14)] + [f"C{i}" for i in range(1, 27)]


def well_formed(line: bytes) -> bool:
    """One raw line without its line end."""
    integer, token = rb"(-?[0-9]+)?", rb"[0-9a-fA-F]{0,8}"
    pattern = rb"[01]" + (rb"\t" + integer) * 13 + (rb"\t" + token) * 26 + rb"\r?"
    if len(line) > 4096 or not re.fullmatch(pattern, line):
        return False
    return all(abs(int(field)) < 2**31 for field in line.split(b"\t")[1:14] if field)


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def bucket(value: int) -> int:
    return value if value <= 2 else 3 + int(math.log(value) ** 2)


def reference(lines: list[bytes], min_count: int, shares: tuple[str, str, str], by: str, seed: int) -> dict:
    """Per split the list of rows; a row is {"label": .., "I1": float32, .., "C1": id, .., "I1_bucket": id}. And the vocabularies."""
    rows = []
    for line in lines:
        if not well_formed(line):
            continue
        fields = line.rstrip(b"\r").split(b"\t")
        row = {"label": int(fields[0])}
        for name, field in zip(COLUMNS, fields[1:], strict=True):
            if name[0] == "I":
                value = int(field) if field else None
                row[name] = np.float32(0 if value is None else math.copysign(math.log1p(abs(value)), value))
                row[name + "_bucket"] = None if value is None else bucket(value)
            else:
                row[name] = int(field, 16) if field else None
        rows.append(row)
    first, second = Fraction(shares[0]), Fraction(shares[0]) + Fraction(shares[1])
    splits: dict[str, list] = {"train": [], "validation": [], "test": []}
    for number, row in enumerate(rows):
        place = Fraction(number, len(rows))
        if by == "random":
            place = Fraction(mix((mix(seed) + (number + 1) * 0x9E3779B97F4A7C15) & MASK), 2**64)
        elif number < int(first * len(rows)):
            place = Fraction(0)
        else:
            place = first if number < int(second * len(rows)) and first < second else Fraction(1)
        splits["train" if place < first else "validation" if place < second else "test"].append(row)
    vocabularies = {}
    for name in [c for c in COLUMNS if c[0] == "C"] + [c + "_bucket" for c in COLUMNS if c[0] == "I"]:
        counts = Counter(row[name] for row in splits["train"] if row[name] is not None)
        kept = sorted((t for t in counts if counts[t] >= min_count), key=lambda t: (-counts[t], t))
        ids = {token: 2 + i for i, token in enumerate(kept)}
        for row in rows:
            row[name] = 0 if row[name] is None else ids.get(row[name], 1)
        vocabularies[name] = [(token, ids[token], counts[token]) for token in kept]
    return {"splits": splits, "vocabularies": vocabularies}


def without_blank_end(text: bytes) -> bytes:
    """A text without the empty lines behind its last one."""
    return re.sub(rb"([\r\x1a]*\n)[\r\n\x1a]*\Z", rb"\1", text)


def records_of(text: bytes, delimiter: bytes = b",", quote: bytes = b'"') -> list[tuple[int, bytes]]:
    """(1-based first line, bytes without the line end) of the records: RFC 4180's; one whose quotes are wrong is its first line alone."""
    found, at, line = [], 0, 1
    while at < len(text):
        end = _record_end(text, at + 3 * text.startswith(b"\xef\xbb\xbf", at), delimiter, quote) if quote else None
        end = (text.find(b"\n", at) + 1 or len(text)) if end is None else end
        found.append((line, text[at:end].removesuffix(b"\n")))
        line += text.count(b"\n", at, end)
        at = end
    return found


def _record_end(text: bytes, at: int, delimiter: bytes, quote: bytes) -> int | None:
    """Behind the record's line end; None where a quote is not closed or text follows a closing one."""
    while True:
        if text.startswith(quote, at):
            at += 1
            while True:
                at = text.find(quote, at)
                if at < 0:
                    return None
                at += 1
                if not text.startswith(quote, at):
                    break
                at += 1
            if text[at:] not in (b"", b"\r") and not text.startswith((delimiter, b"\n", b"\r\n"), at):
                return None
        while at < len(text) and not text.startswith((delimiter, b"\n"), at):
            at += 1
        if at == len(text) or text.startswith(b"\n", at):
            return min(at + 1, len(text))
        at += 1
