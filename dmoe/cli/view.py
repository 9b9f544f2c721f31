"""Prints a view, and writes its page where one is asked for."""

from typing import Any

from dmoe.json_text import defined, format_json
from dmoe.names import show
from dmoe.report.document import Document


def show_view(view: Document, page: str | None = None, data: Any = None) -> None:
    """Prints the view as text, or `data` as JSON.

    Args:
        page: the file that gets the HTML.
        data: printed in place of the text; None for the text.
    """
    show(view.text() if data is None else format_json(defined(data), indent=1))
    if page:
        write_page(page, view.html())
        if data is None:
            show(f"\npage: {page}")


def write_page(path: str, text: str) -> None:
    """Writes a page, or another text, as a whole or not at all."""
    from dmoe.storage.paths import write_output

    with write_output(path) as file:
        file.write(text.encode())
