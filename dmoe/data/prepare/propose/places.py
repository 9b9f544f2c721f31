"""Reads pieces of a text file from evenly spread positions, or from its start if it is compressed."""

from dmoe.data.prepare.source.containers import read_full, unwrapped
from dmoe.data.prepare.source.log_files import MAX_ROW, File
from dmoe.data.prepare.source.raw_bytes import open_raw, read_range
from dmoe.data.prepare.source.record_ends import cut_at_record

PLACES = 20
"""Number of positions in a file from which rows are read."""
FEWEST_BYTES, MOST_BYTES = 4 << 20, 256 << 20
"""Least and most bytes of text that are sampled. A smaller file is read completely."""


def bytes_a_row(start: bytes) -> float:
    return len(start) / max(start.count(b"\n"), 1)


def read_places(file: File, quote: bytes, rows: int, bytes_a_row: float) -> tuple[list[tuple[bytes, int]], str]:
    """Reads about `rows` rows in pieces of complete records.

    Returns:
        (text, number of its first line, or 0 if unknown) of each piece; and a description of where they were read.
    """
    wanted = int(min(max(rows * bytes_a_row, FEWEST_BYTES), MOST_BYTES))
    begin = file.header_bytes
    if file.compression:
        with open_raw(file.place) as raw:
            stream = unwrapped(file.path, raw, file.compression)
            read_full(file.path, stream, begin)
            text = read_full(file.path, stream, wanted)
            ended = len(text) < wanted
        return _whole(file, text, quote, ended, file.header_lines + 1), "all of it" if ended else "from its start, since it is compressed"
    if file.size - begin <= wanted:
        return _whole(file, read_range(file.place, begin, wanted), quote, True, file.header_lines + 1), "all of it"
    size = max(wanted // PLACES, 1 << 12)
    found: list[tuple[bytes, int]] = []
    for place in range(PLACES):
        at = begin + (file.size - size - begin) * place // (PLACES - 1)
        text = read_range(file.place, at, size)
        if place:
            text = text[text.find(b"\n") + 1 :]
        found += _whole(file, text, quote, place == PLACES - 1, file.header_lines + 1 if not place else 0)
    return found, f"from {PLACES} places of its {file.size:,} bytes"


def _whole(file: File, text: bytes, quote: bytes, ended: bool, number: int) -> list[tuple[bytes, int]]:
    text = text.rstrip(b"\r\n\x1a") + b"\n" if ended and len(file.columns) > 1 else text
    text = text[: cut_at_record(text, file.delimiter, quote, MAX_ROW, ended)]
    return [(text, number)] if text.strip() else []
