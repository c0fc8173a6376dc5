"""Tables, and their output as Markdown, plain text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sotglp.benchmark.statistics import Summary


@dataclass(frozen=True)
class Entry:
    """A cell of a table: its text, the numbers behind it, and whether it is the best of its column."""

    text: str
    summary: Summary | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its name."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()


def to_markdown(table: Table) -> str:
    """Write a heading, the table and its notes; the best of a column is bold."""
    header = [markdown_text(name) for name in table.header]
    rows = [
        [f"**{markdown_text(field.text)}**" if field.is_best else markdown_text(field.text) for field in row]
        for row in table.rows
    ]
    widths = _widths([header, *rows])
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        f"| {' | '.join(line)} |" for line in (_aligned(header, widths), rule, *(_aligned(row, widths) for row in rows))
    ]
    return "\n".join(
        [f"### {markdown_text(table.title)}", "", *lines, "", *(f"{markdown_text(note)}\n" for note in table.notes)]
    )


def to_text(table: Table) -> str:
    """Write aligned columns for a terminal."""
    rows = [list(table.header), *([field.text for field in row] for row in table.rows)]
    widths = _widths(rows)
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    return "\n".join([table.title, "", *lines, "", *table.notes])


def to_csv(table: Table) -> str:
    """Write header and rows, without title and notes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([field.text for field in row] for row in table.rows)
    return buffer.getvalue()


def to_latex(table: Table) -> str:
    """Write a table environment with booktabs rules; the best of a column is bold."""
    rows = [
        [rf"\textbf{{{_latex(field.text)}}}" if field.is_best else _latex(field.text) for field in row]
        for row in table.rows
    ]
    lines = [" & ".join(row) + r" \\" for row in ([_latex(name) for name in table.header], *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip{{\footnotesize {_latex(note)}\par}}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(3, *map(len, column)) for column in zip(*rows, strict=True)]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The first cell flush left, the others flush right."""
    return [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]


def markdown_text(text: str) -> str:
    """Escape text for Markdown, on one line."""
    return re.sub(r"[\\`*|\[]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "<": "$<$",
        ">": "$>$",
        # At the start of a row, these would be arguments of the \\\\ before it.
        "[": "{[}",
        "*": "{*}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def _latex(text: str) -> str:
    """Escape text for LaTeX, on one line."""
    return " ".join(text.split()).translate(_LATEX)
