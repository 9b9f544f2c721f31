"""Writes a document as text, with tables in aligned columns."""

import textwrap
from collections.abc import Collection, Iterator, Sequence

from dmoe.names import clip
from dmoe.report.document.parts import Block, Bullets, Figures, Note, Table, Widget, shown

WIDTH = 100
NARROWEST = 20, 5
"""Least width of a column of words, in characters, if a table is too wide; and where that makes too little room."""


def as_text(blocks: Sequence[Block]) -> str:
    """Text for a terminal. Lines have at most WIDTH columns, unless figures and names need more."""
    return "\n\n".join("\n".join(_lines(block)) for block in shown(blocks, "text"))


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        if block.caption:
            yield from wrapped(f"{block.caption}:")
        yield from in_columns(block.head, blank_repeats(block.rows, block.same), block.words, block.rule)
    elif isinstance(block, Bullets):
        for line in block.lines:
            yield from wrapped(f"- {line}", "  ")
    elif isinstance(block, Note) and block.kind == "code":
        yield from block.text.split("\n")
    elif not isinstance(block, (Figures, Widget)):
        yield from wrapped(block.text)


def wrapped(text: str, indent: str = "") -> list[str]:
    """Wraps text into lines of at most WIDTH columns. All lines but the first get the indent."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def blank_repeats(rows: Sequence[Sequence[str]], count: int) -> list[list[str]]:
    """Replaces the first `count` cells of a row by blanks if they are equal to those of the row above."""
    made = []
    for above, row in zip([None, *rows], rows, strict=False):
        same = above is not None and list(above[:count]) == list(row[:count])
        made.append([*[""] * count, *row[count:]] if same else list(row))
    return made


def in_columns(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Collection[int] = (0,),
    rule: bool = False,
    width: int = WIDTH,
) -> Iterator[str]:
    """Lines of a table. Columns of words are aligned to the left, figures to the right.

    Args:
        words: indices of the columns of words. If the table is wider than `width`, the widest of them are clipped, if that is enough.
        rule: draw a line below the head.

    Example:
        >>> print(*in_columns(["table", "rows"], [["C1", "1,000"], ["C10", "20"]]), sep="\\n")
        table   rows
        C1     1,000
        C10       20
    """
    whole = [head, *rows]
    widths = [max(len(row[at]) for row in whole) for at in range(len(head))]
    over = sum(widths) + 2 * (len(widths) - 1) - width
    if over > 0 and any(over <= sum(max(widths[at] - narrowest, 0) for at in words) for narrowest in NARROWEST):
        for _ in range(over):
            widths[max(words, key=lambda at: widths[at])] -= 1
    for number, row in enumerate(whole):
        cells = [
            f"{clip(cell, size):<{size}}" if at in words else f"{cell:>{size}}"
            for at, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        yield line
        if rule and not number:
            yield "-" * len(line)
