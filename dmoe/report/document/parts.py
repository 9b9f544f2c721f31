"""The parts of a document: headings, paragraphs, lists, tables and charts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dmoe.json_text import defined

Only = Literal["", "page", "text"]
"""Where a block is shown: everywhere (empty), only in HTML and JSON (`page`), or only in the text (`text`)."""


class Cell(str):
    """The text of a cell of a table.

    Attributes:
        kind: class of the style sheet: `good`, `bad` or `faint`.
        value: the number that the text represents. Tables are sorted by it, and JSON has it instead of the text.
        link: caption of a table on the same page. A click on the cell shows the rows of that table that contain the text of the cell.
    """

    kind: str
    value: float | None
    link: str

    def __new__(cls, text: str, kind: str = "", value: float | None = None, link: str = "") -> "Cell":
        cell = super().__new__(cls, text)
        cell.kind, cell.value, cell.link = kind, value, link
        return cell


@dataclass(frozen=True)
class Heading:
    """The heading of a section. Headings of empty sections are left out."""

    text: str
    level: int = 2
    kind: str = ""
    only: Only = "page"

    def __bool__(self) -> bool:
        return bool(self.text)


@dataclass(frozen=True)
class Note:
    """A paragraph. `kind` is a class of the style sheet: `good`, `bad`, `faint`, or `code` for lines that are not wrapped."""

    text: str
    kind: str = ""
    only: Only = ""

    def __bool__(self) -> bool:
        return bool(self.text)


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    lines: Sequence[str]
    only: Only = ""

    def __bool__(self) -> bool:
        return bool(self.lines)


@dataclass(frozen=True)
class Table:
    """Rows of text or `Cell`s.

    Attributes:
        caption: the name of the table for screen readers, which the text prints above it. If empty, the name is the heading above.
        words: indices of the columns of words, which are aligned to the left. The other columns hold figures.
        same: in the text, the first `same` cells of a row are blank if they are equal to those of the row above.
        rule: draw a line below the head in the text.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: Sequence[int] = (0,)
    same: int = 0
    only: Only = ""
    rule: bool = True

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(frozen=True)
class Series:
    """The points of one item, such as a variant.

    Attributes:
        low, high: bounds of the interval of each point; empty without intervals.
        band: draw the intervals as one area, not as bars.
        dashed: draw a dashed line without points, for a reference.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    band: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines, or clouds of points, over a numeric axis.

    Attributes:
        x_names: (value of x, name) for labels that replace the numbers of the x axis.
        levels: (value of y, name) of horizontal lines. The range of the y axis includes them.
        marks: (name, values of x) of vertical lines, such as alarms. The lines of the first name are red.
        cloud: draw points without lines, and a numbered mark at the mean of each series.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    x_names: Sequence[tuple[float, str]] = ()
    levels: Sequence[tuple[float, str]] = ()
    marks: Sequence[tuple[str, Sequence[float]]] = ()
    cloud: bool = False

    def __bool__(self) -> bool:
        return any(len(one.x) for one in self.series)


@dataclass(frozen=True)
class Bars:
    """Horizontal bars with one row per name. Several series are stacked."""

    title: str
    x_label: str
    names: Sequence[str]
    series: Sequence[tuple[str, Sequence[float]]]
    log: bool = False

    def __bool__(self) -> bool:
        return bool(self.names)


@dataclass(frozen=True)
class Forest:
    """Differences with their intervals, one row each: (name, mean, low, high)."""

    title: str
    x_label: str
    rows: Sequence[tuple[str, float, float, float]]

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(frozen=True)
class HeatMap:
    """A square matrix of numbers. The color scale ends at `top`, or at the largest entry if `top` is None."""

    title: str
    matrix: Sequence[Sequence[float]]
    names: Sequence[str]
    top: float | None = None

    def __bool__(self) -> bool:
        return bool(self.matrix)


AnyChart = Chart | Bars | Forest | HeatMap


@dataclass(frozen=True)
class Figures:
    """Charts side by side. The text has no charts."""

    charts: Sequence[AnyChart]
    only: Only = "page"

    def __bool__(self) -> bool:
        return any(self.charts)


@dataclass(frozen=True)
class Widget:
    """HTML with a script and a style of its own, for which the page alone has a place.

    Attributes:
        data: JSON that the script reads from the element `data`, of which a page has one.
    """

    body: str
    script: str
    style: str
    data: str
    only: Only = "page"


Block = Heading | Note | Bullets | Table | Figures | Widget


def shown(blocks: Sequence[Block], where: Only) -> list[Block]:
    """The blocks that are shown in `where`, without empty blocks and headings of empty sections."""
    kept: list[Block] = []
    for block in reversed([one for one in blocks if one and one.only in ("", where)]):
        below = kept[-1] if kept else None
        if isinstance(block, Heading) and (below is None or (isinstance(below, Heading) and below.level <= block.level)):
            continue
        kept.append(block)
    return kept[::-1]


def as_data(block: Heading | Note | Bullets | Table | Figures) -> dict[str, Any]:
    """Converts a block into plain data for JSON."""
    kind = type(block).__name__.lower()
    if isinstance(block, Table):
        rows = [[cell.value if isinstance(cell, Cell) and cell.value is not None else str(cell) for cell in row] for row in block.rows]
        return {"kind": kind, "caption": block.caption, "head": list(block.head), "rows": rows}
    if isinstance(block, Figures):
        return {"kind": kind, "charts": [{"kind": type(one).__name__.lower(), **defined(asdict(one))} for one in block.charts if one]}
    if isinstance(block, Bullets):
        return {"kind": kind, "lines": [str(line) for line in block.lines]}
    return {"kind": kind, "text": block.text}
