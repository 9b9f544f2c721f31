"""One `Document` for text, HTML and JSON: a view says once what it shows."""

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
    "in_columns",
    "wrapped",
]


@dataclass(frozen=True)
class Document:
    """A view: what `dmoe` prints, and the page or JSON that it writes.

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
        """At most 100 columns wide, but for figures and names that need more; without title, headings and charts."""
        return as_text(self.blocks)

    def html(self) -> str:
        """One self-contained page."""
        return as_html(self.title, self.blocks)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: `title`, and `blocks` with their `kind`."""
        return {"title": self.title, "blocks": [as_data(block) for block in shown(self.blocks, "page")]}
