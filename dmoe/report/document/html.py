"""Writes a document as a self-contained HTML page, with page.js (sort, filter, tooltips) and page.css. The page loads no other files."""

import base64
import hashlib
import html
import re
from collections.abc import Iterator, Sequence
from importlib import resources

from dmoe.names import printable
from dmoe.report.document.parts import AnyChart, Block, Bullets, Cell, Chart, Figures, Heading, Note, Table, Widget, shown
from dmoe.report.document.svg import as_svg, legend_of

FOLDER = resources.files("dmoe.report.document")
UNITS = {"%": 0.01, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "k": 1e3, "M": 1e6}
NUMBER = re.compile(r"([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?) ?(%|[kMGT]?B|[kM]|ms|s|x|points)?(?: ?[±\[(+].*| of .*)?")
EMPTY = {"", "-"}
LONG = 50
"""A cell with more characters is a sentence, whose column gets a minimum width."""


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """The complete page. Only its script may run, even if a name contains HTML: the content security policy has the hash."""
    blocks = shown(blocks, "page")
    widgets = [block for block in blocks if isinstance(block, Widget)]
    body, data = "\n".join(_parts(title, blocks)), "".join(one.data for one in widgets)
    script = "\n".join([_read("page.js"), *(one.script for one in widgets)])
    style = "".join([_read("page.css"), *(one.style for one in widgets)])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    # Only a < could end the text of a script element.
    held = f'<script type="application/json" id="data">{data.replace("<", chr(92) + "u003c")}</script>' if data else ""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{text(title)}</title><style>{style}</style></head><body><main><h1>{text(title)}</h1>
{body}</main>{held}<script>{script}</script></body></html>
"""


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def text(value: str) -> str:
    """Escapes text of a user for HTML."""
    return html.escape(printable(value))


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _parts(title: str, blocks: Sequence[Block]) -> Iterator[str]:
    above = title
    for block in blocks:
        if isinstance(block, Heading):
            above = block.text
            yield f"<h{block.level}{_class(block.kind)}>{text(block.text)}</h{block.level}>"
        elif isinstance(block, Note):
            tag = "pre" if block.kind == "code" else "p"
            yield f"<{tag}{_class(block.kind)}>{html.escape(printable(block.text, keep=chr(10)))}</{tag}>"
        elif isinstance(block, Bullets):
            yield f"<ul>{''.join(f'<li>{text(line)}</li>' for line in block.lines)}</ul>"
        elif isinstance(block, Table):
            yield _table(block, block.caption or above)
        elif isinstance(block, Widget):
            yield block.body
        else:
            yield _figures(block)


def _table(block: Table, caption: str) -> str:
    columns = [[row[at] for row in block.rows] for at in range(len(block.head))]
    values = [_values(cells, at in block.words) for at, cells in enumerate(columns)]
    # A column of sentences gets a minimum width for narrow windows.
    kinds = ["" if at not in block.words else "words long" if max(map(len, cells)) > LONG else "words" for at, cells in enumerate(columns)]
    head = "".join(f'<th scope="col"{_class(kind)}>{text(cell)}</th>' for cell, kind in zip(block.head, kinds, strict=True))
    rows = []
    for number, row in enumerate(block.rows):
        cells = [_cell(cell, values[at][number], at, kinds[at]) for at, cell in enumerate(row)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    name, hidden = text(caption), "" if block.caption else ' class="hidden"'
    return (
        f'<div class="table" data-name="{name}"><div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>'
        f"<caption{hidden}>{name}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _values(cells: Sequence[str], words: bool) -> list[float | None]:
    """The number of each cell, for sorting. A column of words has numbers only if all its cells are numbers."""
    found = [cell.value if isinstance(cell, Cell) and cell.value is not None else number_in(cell) for cell in cells]
    if words and any(value is None and cell not in EMPTY for value, cell in zip(found, cells, strict=True)):
        return [None] * len(cells)
    return found


def number_in(cell: str) -> float | None:
    """The number at the beginning of a cell.

    Example:
        >>> [number_in(cell) for cell in ("1,024", "-0.5 [-0.6, -0.4]", "12.5 MB", "3 ± 1", "50%", "2x8:h100", "-")]
        [1024.0, -0.5, 12500000.0, 3.0, 0.5, None, None]
    """
    found = NUMBER.fullmatch(cell)
    return float(found[1].replace(",", "")) * UNITS.get(found[2] or "", 1.0) if found else None


def _cell(cell: str, value: float | None, at: int, column: str) -> str:
    kinds = _class(f"{column} {cell.kind if isinstance(cell, Cell) else ''}".strip())
    number = "" if value is None else f' data-v="{value:.12g}"'
    tag = 'th scope="row"' if at == 0 else "td"
    said = text(cell)
    if isinstance(cell, Cell) and cell.link:
        said = f'<a href="#" data-table="{text(cell.link)}">{said}</a>'
    return f"<{tag}{kinds}{number}>{said}</{tag[:2]}>"


def _figures(block: Figures) -> str:
    return f'<div class="figures">{"".join(_figure(chart) for chart in block.charts if chart)}</div>'


def _figure(chart: AnyChart) -> str:
    names, keys = legend_of(chart), ""
    for index, (name, hue) in enumerate(names if len(names) > 1 else ()):
        said = f"{index + 1} {name}" if isinstance(chart, Chart) and chart.cloud else name
        keys += f'<span class="key" data-name="{text(name)}"><i style="background:{hue}"></i>{text(said)}</span>'
    legend = f'<div class="legend">{keys}</div>' if keys else ""
    return f'<figure class="chart"><figcaption>{text(chart.title)}</figcaption>{as_svg(chart)}{legend}</figure>'
