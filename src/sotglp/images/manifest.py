"""A table that lists images: CSV or Parquet with the columns path and label."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sotglp.errors import SotglpError
from sotglp.files.regular import check_regular, read_regular

MANIFEST_SUFFIXES = frozenset({".csv", ".parquet"})
"""File name endings, in lower case, of the manifests there are."""

_EXPECTED = "a manifest has the columns path and label"


def read_manifest(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...] | None]:
    """Read the image files and labels that a manifest lists.

    Parameters
    ----------
    path : Path
        A .csv file (UTF-8, separated by commas, the first line naming the columns) or a .parquet file. The column
        `path` is needed; paths in it that aren't absolute start at the manifest's folder. The column `label` may be
        absent; columns of other names are ignored.

    Returns
    -------
    images : tuple of Path
        One for each row, in the order of the rows; each is there.
    labels : tuple of str, or None
        None if the manifest has no column `label`.

    Raises
    ------
    SotglpError
        If the file can't be read, lacks the column `path` or rows, or a row has no path or label or names a file that
        isn't there.
    """
    suffix = path.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise SotglpError(f"{path} is no manifest that can be read; give a .csv or a .parquet file")
    rows = _csv_rows(path) if suffix == ".csv" else _parquet_rows(path)
    columns = next(rows)[1]
    if "path" not in columns:
        has = ", ".join(columns)
        raise SotglpError(f"{path} has no column path, only: {has}; {_EXPECTED}, which commas separate in a CSV file")
    at_path = columns.index("path")
    at_label = columns.index("label") if "label" in columns else None
    images: list[Path] = []
    labels: list[str] = []
    for where, row in rows:
        if len(row) > len(columns):
            raise SotglpError(
                f"{path} has more fields in {where} than the {len(columns)} columns; put quotes around a comma"
            )
        if not (file := _cell(row, at_path)):
            raise SotglpError(f"{path} has no path in {where}; fill it in or remove the row")
        image = path.parent / file
        if not os.path.isfile(image):
            raise SotglpError(
                f"{path} lists {file} in {where}, but there is no file {image}; correct the path or remove the row"
            )
        images.append(image)
        if at_label is not None:
            if not (label := _cell(row, at_label)):
                raise SotglpError(f"{path} has no label for {file} in {where}; fill it in or remove the row")
            labels.append(label)
    if not images:
        raise SotglpError(f"{path} lists no images; add a row for each image")
    return tuple(images), None if at_label is None else tuple(labels)


def _cell(row: list[Any], column: int) -> str:
    value = row[column] if column < len(row) else None
    return "" if value is None else str(value).strip()


def _csv_rows(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield the header, then every row that isn't blank, each with the words that say where it is."""
    try:
        content = read_regular(path)
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SotglpError(f"{path} is not UTF-8 text in line {line}; save it as CSV in UTF-8") from error
    # Strict, or a quote that is never closed would swallow the rest of the file as one field.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    n_rows = -1
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise SotglpError(
                f"{path} is not proper CSV in the row that starts at line {line} ({error}); check the quotes there"
            ) from error
        if any(field.strip() for field in fields):
            n_rows += 1
            yield f"row {n_rows} (line {line})", [field.strip() for field in fields]
    if n_rows < 0:
        raise SotglpError(f"{path} is empty; {_EXPECTED}")


def _parquet_rows(path: Path) -> Iterator[tuple[str, list[Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SotglpError(
            f'reading {path} takes pyarrow; install it with pip install "sotglp[parquet]", or give a CSV file'
        ) from error
    try:
        check_regular(path)
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = [str(name) for name in file.schema_arrow.names]
            wanted = [name for name in columns if name in ("path", "label")]
            table = file.read(columns=wanted)
    except OSError as error:
        raise _unopened(path, error) from error
    except (pyarrow.ArrowException, ValueError) as error:
        raise SotglpError(f"{path} is not a whole Parquet file; write it again or give a CSV file") from error
    yield "the header", columns if "path" not in columns else wanted
    for name, column in zip(wanted, table.columns, strict=True):
        kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_integer(kind)):
            raise SotglpError(f"{path} has a column {name} of type {column.type}; write it as text")
    try:
        cells = [column.to_pylist() for column in table.columns]
    except UnicodeDecodeError as error:
        raise SotglpError(f"{path} holds text that is not UTF-8; write it again in UTF-8") from error
    except pyarrow.ArrowException as error:  # words that are not in the dictionary of a column, for one
        raise SotglpError(f"{path} is not a whole Parquet file; write it again or give a CSV file") from error
    for n_rows, values in enumerate(zip(*cells, strict=True), start=1):
        yield f"row {n_rows}", list(values)


def _unopened(path: Path, error: OSError | ValueError) -> SotglpError:
    reason = getattr(error, "strerror", None) or error
    return SotglpError(f"{path} can't be opened ({reason}); check the path")
