"""Aligned tables and counted nouns for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from sotglp.console.text import printable

WIDEST_ALIGNED = 100
"""Longer cells, such as paths of temporary folders, push their own row only, not the whole column."""

GAP = "  "


class Table(NamedTuple):
    """Titles of columns, or nothing, rows of cells, and the indices of columns that are aligned at the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()


Part: TypeAlias = str | Table
"""A part of a result for people: a line or a table."""


def part_lines(parts: Iterable[Part]) -> Iterator[str]:
    """Yield the lines of a result for a terminal."""
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            yield from table_lines(part.header, part.rows, right=part.right)


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Return the lines of a table with aligned columns; an empty header is left out.

    Parameters
    ----------
    header : sequence of str
        Titles of the columns, or nothing.
    rows : sequence of sequences of str
        Cells; their control characters are escaped.
    right : sequence of int
        Indices of columns that are aligned at the right, such as numbers.
    """
    table = [[printable(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not table:
        return []
    widths = [max(min(_width(row[column]), WIDEST_ALIGNED) for row in table) for column in range(len(table[0]))]
    return [
        GAP.join(
            _padded(cell, width, column in right) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as ``1 image`` and ``2 images``."""
    return f"{n} {noun if n == 1 else plural or f'{noun}s'}"


def _padded(text: str, width: int, at_right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if at_right else text + space


def _width(text: str) -> int:
    """Columns that a text takes in a terminal: two for Chinese, Japanese and Korean letters, none for accents."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text
    )
