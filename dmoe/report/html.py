"""The frame of a page: self-contained, on light and on dark paper."""

import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #5b6470; --line: #d9dee5; --good: #1f7a4a; --bad: #b3382f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #15181c; --faint: #9aa3af; --line: #333a44; --good: #63c492; --bad: #ef8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { max-width: 1480px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-size: .84rem; }
th, td { padding: .3rem .6rem; white-space: nowrap; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child, td.words { text-align: left; } td.words { white-space: normal; min-width: 14ch; }
th { font-weight: 600; } td { font-variant-numeric: tabular-nums; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
svg { max-width: 100%; height: auto; display: block; } p, li { max-width: 85ch; } .faint { color: var(--faint); }
.good { color: var(--good); } .bad { color: var(--bad); } .scroll { overflow-x: auto; } code { font-size: .9em; }
"""


class Cell(str):
    """Text of a table's cell with a class of the style sheet: `good`, `bad`, `faint` or `words`."""

    kind: str

    def __new__(cls, text: str, kind: str = "") -> "Cell":
        cell = super().__new__(cls, text)
        cell.kind = kind
        return cell


def document(title: str, parts: Sequence[str]) -> str:
    """The whole page around its parts, which are HTML."""
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>\n{body}</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text; `Cell`s bring their class."""
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(text: str) -> str:
    kind = f" class='{text.kind}'" if isinstance(text, Cell) and text.kind else ""
    return f"<td{kind}>{html.escape(text)}</td>"


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={kind!r}' if kind else ''}>{html.escape(text)}</p>"


def bullets(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def figures(svgs: Sequence[str]) -> str:
    """Drawings side by side."""
    return "<div class='figures'>" + "".join(f"<figure>{svg}</figure>" for svg in svgs) + "</div>"
