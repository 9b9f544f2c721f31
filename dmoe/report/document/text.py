"""A document as text, and tables in columns."""

import textwrap
from collections.abc import Collection, Iterator, Sequence

from dmoe.names import clip
from dmoe.report.document.parts import Block, Bullets, Figures, Note, Table, shown

WIDTH = 100
NARROWEST = 20
"""Characters that a column of words keeps where a table is too wide."""


def as_text(blocks: Sequence[Block]) -> str:
    """What a terminal shows: WIDTH columns, but for figures and names that need more."""
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
    elif not isinstance(block, Figures):
        yield from wrapped(block.text)


def wrapped(text: str, indent: str = "") -> list[str]:
    """Lines of at most WIDTH columns; `indent` is of all but the first."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def blank_repeats(rows: Sequence[Sequence[str]], count: int) -> list[list[str]]:
    """The rows, whose first `count` cells are blank where they are those of the row above."""
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
    narrowest: int = NARROWEST,
) -> Iterator[str]:
    """A table's lines: columns of words to the left, figures to the right.

    Args:
        words: the columns of words; where the table is wider than `width` and that helps, the widest of them are clipped.
        rule: a line below the head.
        narrowest: characters that a column of words keeps.

    Example:
        >>> print(*in_columns(["table", "rows"], [["C1", "1,000"], ["C10", "20"]]), sep="\\n")
        table   rows
        C1     1,000
        C10       20
    """
    whole = [head, *rows]
    widths = [max(len(row[at]) for row in whole) for at in range(len(head))]
    over = sum(widths) + 2 * (len(widths) - 1) - width
    spare = {at: max(widths[at] - narrowest, 0) for at in words}
    if 0 < over <= sum(spare.values()):
        for _ in range(over):
            widest = max((at for at in words if widths[at] > narrowest), key=lambda at: widths[at])
            widths[widest] -= 1
    for number, row in enumerate(whole):
        cells = [
            f"{clip(cell, size):<{size}}" if at in words else f"{cell:>{size}}"
            for at, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        yield line
        if rule and not number:
            yield "-" * len(line)
