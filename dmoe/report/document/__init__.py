"""`Document`: a report that is described once and written as text, HTML or JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dmoe.report.document.html import as_html
from dmoe.report.document.parts import (
    Bars,
    Block,
    Bullets,
    Cell,
    Chart,
    Figures,
    Forest,
    Heading,
    HeatMap,
    Note,
    Series,
    Table,
    Widget,
    as_data,
    shown,
)
from dmoe.report.document.text import WIDTH, as_text, in_columns, wrapped

__all__ = [
    "WIDTH",
    "Bars",
    "Block",
    "Bullets",
    "Cell",
    "Chart",
    "Document",
    "Figures",
    "Forest",
    "Heading",
    "HeatMap",
    "Note",
    "Series",
    "Table",
    "Widget",
    "in_columns",
    "wrapped",
]


@dataclass(frozen=True)
class Document:
    """A report, as the text that `dmoe` prints, and as the page or JSON that it writes.

    Example:
        >>> view = Document("Runs", [Heading("Test"), Table(["variant", "AUC"], [["D-MoE", Cell("0.7300", value=0.73)]])])
        >>> print(view.text())
        variant     AUC
        ---------------
        D-MoE    0.7300
        >>> view.data()["blocks"][1]["rows"]
        [['D-MoE', 0.73]]
        >>> view.html().startswith("<!doctype html>")
        True
    """

    title: str
    blocks: Sequence[Block]

    def text(self) -> str:
        """Text without title, headings and charts. Lines have at most 100 columns, unless figures and names need more."""
        return as_text(self.blocks)

    def html(self) -> str:
        """A self-contained HTML page."""
        return as_html(self.title, self.blocks)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: `title` and `blocks`, each with its `kind`."""
        return {"title": self.title, "blocks": [as_data(block) for block in shown(self.blocks, "page") if not isinstance(block, Widget)]}
