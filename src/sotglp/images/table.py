"""Rows of a CSV or Parquet table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sotglp.errors import SotglpError
from sotglp.files.regular import check_regular, read_regular

DELIMITERS = (",", ";", "\t", "|")
"""Separators of a CSV file; those after the first are those of some countries' spreadsheets."""

MAX_ROWS_A_BYTE = 100
"""A manifest names each image, which takes some bytes of its file even where they are compressed."""

Choose = Callable[[list[str]], list[str]]
"""Returns the columns to read of those that a table has; none of them if the table can't be used."""


def csv_rows(path: Path, choose: Choose) -> Iterator[tuple[str, list[Any]]]:
    """Yield the header, then every row that isn't blank, each with its position for messages.

    Cells are separated by that of ``DELIMITERS`` with which the header has the columns to read.
    """
    try:
        content = read_regular(path)
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from error
    yield from csv_rows_of(str(path), content, choose)


def csv_rows_of(path: str, content: bytes, choose: Choose) -> Iterator[tuple[str, list[Any]]]:
    """Yield the rows of a CSV file with this ``content``; see :func:`csv_rows`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SotglpError(f"{path} isn't UTF-8 text in line {line}; save it as CSV in UTF-8") from error
    delimiter, start = _delimiter(text, choose)
    # Strict, because an unclosed quote would make one field of the rest of the file.
    reader = csv.reader(io.StringIO(text[start:], newline=""), strict=True, skipinitialspace=True, delimiter=delimiter)
    lines_before = text.count("\n", 0, start)
    n_rows = -1
    while True:
        line = lines_before + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise SotglpError(
                f"{path} isn't valid CSV in the row that starts at line {line} ({error}); check its quotes"
            ) from error
        if any(field.strip() for field in fields):
            n_rows += 1
            yield f"row {n_rows} (line {line})", [field.strip() for field in fields]
    if n_rows < 0:
        raise SotglpError(f"{path} is empty; a manifest has the columns path and label")


def _delimiter(text: str, choose: Choose) -> tuple[str, int]:
    """Return the separator, and where the table starts: after a line such as "sep=;", which spreadsheets read."""
    if declared := re.match(r"\s*\"?sep=(.)\"?\r?\n", text, re.IGNORECASE):
        return declared[1], declared.end()
    header = next((line for line in text.splitlines() if line.strip()), "")
    lengths = {}
    for delimiter in DELIMITERS:
        try:
            fields = next(csv.reader([header], skipinitialspace=True, delimiter=delimiter), [])
        except csv.Error:  # a field longer than the module reads
            continue
        if choose([field.strip() for field in fields]):
            return delimiter, 0
        lengths[delimiter] = len(fields)
    return max(lengths, key=lengths.__getitem__, default=DELIMITERS[0]), 0


def parquet_rows(path: Path, choose: Choose) -> Iterator[tuple[str, list[Any]]]:
    """Yield the header of the chosen columns, or of all if none is chosen, then the rows; see :func:`csv_rows`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SotglpError(
            f'reading {path} requires pyarrow; install it with pip install "sotglp[parquet]", or give a CSV file'
        ) from error
    try:
        check_regular(path)
        with pyarrow.parquet.ParquetFile(path) as file:
            check_counts(file.metadata, path.stat().st_size)
            columns = [str(name) for name in file.schema_arrow.names]
            wanted = choose(columns)
            if twice := [name for name in wanted if columns.count(name) > 1]:
                raise SotglpError(f"{path} has the column {twice[0]} twice; rename or remove one")
            table = file.read(columns=wanted)
    except OSError as error:
        raise _unopened(path, error) from error
    except (pyarrow.ArrowException, ValueError, MemoryError) as error:
        if isinstance(error, SotglpError):
            raise
        raise SotglpError(f"{path} is not a complete Parquet file; write it again or give a CSV file") from error
    yield "the header", wanted or columns
    kinds = pyarrow.types
    for name, column in zip(wanted, table.columns, strict=True):
        kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
        is_text = kinds.is_string(kind) or kinds.is_large_string(kind) or str(kind) == "string_view"
        is_plain = is_text or kinds.is_integer(kind)
        if not (is_plain or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)):
            holds = "; it probably holds the images: write them to files, and list their names"
            advice = holds if kinds.is_struct(kind) or name == wanted[0] else "; write it as text"
            raise SotglpError(f"{path} has a column {name} of type {column.type}{advice}")
    try:
        cells = [column.to_pylist() for column in table.columns]
    except UnicodeDecodeError as error:
        raise SotglpError(f"{path} has text that isn't UTF-8; write it again in UTF-8") from error
    except pyarrow.ArrowException as error:  # such as an index beyond a column's dictionary
        raise SotglpError(f"{path} is not a complete Parquet file; write it again or give a CSV file") from error
    for n_rows, values in enumerate(zip(*cells, strict=True), start=1):
        yield f"row {n_rows}", list(values)


def check_counts(metadata: Any, size: int) -> None:
    """Raise a ValueError if the numbers of rows of a Parquet file of ``size`` bytes can't be.

    Reading a file takes memory for as many rows as a part of it claims to have.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows or metadata.num_rows > MAX_ROWS_A_BYTE * size:
        raise ValueError("the numbers of rows differ")


def _unopened(path: Path, error: OSError | ValueError) -> SotglpError:
    reason = getattr(error, "strerror", None) or error
    return SotglpError(f"{path} can't be opened ({reason}); check the path")
