"""Results as HTML for notebooks: no style, script or picture is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from sotglp.console.table import Part, Table
from sotglp.console.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def parts_html(title: str, parts: Iterable[Part]) -> str:
    """Return a result as a heading, paragraphs and tables; all text is escaped."""
    body = "".join(_table(part) if isinstance(part, Table) else _paragraph(part) for part in parts)
    return f"<div><strong>{_escaped(title)}</strong>{body}</div>"


def figure_html(figure: Figure, description: str) -> str:
    """Return a figure as an image that holds its own data, with ``description`` for those who can't see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{_escaped(description)}" style="max-width: 100%">'


def _paragraph(text: str) -> str:
    return f"<p>{_escaped(text)}</p>" if text else ""


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    head = f"<thead><tr>{_cells(table.header, table.right, 'th')}</tr></thead>" if table.header else ""
    rows = "".join(f"<tr>{_cells(row, table.right, 'td')}</tr>" for row in table.rows)
    return f"<table>{head}<tbody>{rows}</tbody></table>"


def _cells(row: Iterable[str], right: Sequence[int], tag: str) -> str:
    return "".join(
        f'<{tag} style="text-align: {"right" if column in right else "left"}">{_escaped(cell)}</{tag}>'
        for column, cell in enumerate(row)
    )


def _escaped(text: str) -> str:
    return escape(printable(text))
