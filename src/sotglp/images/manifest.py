"""Manifests: CSV or Parquet tables of images, with the columns path and label."""

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
"""Suffixes of manifests, in lower case."""

_EXPECTED = "a manifest has the columns path and label"


def read_manifest(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...] | None]:
    """Read the image files, all of which exist, and labels that a manifest lists; None without a column `label`.

    A manifest is a .csv file (UTF-8, separated by commas, with a header) or a .parquet file. The column `path` is
    required; relative paths start at the manifest's folder. The column `label` is optional; other columns are ignored.
    """
    suffix = path.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise SotglpError(f"{path} isn't a manifest; give a .csv or a .parquet file")
    rows = _csv_rows(path) if suffix == ".csv" else _parquet_rows(path)
    columns = next(rows)[1]
    if "path" not in columns:
        has = ", ".join(columns)
        raise SotglpError(f"{path} has no column path, only: {has}; {_EXPECTED}, separated by commas in a CSV file")
    path_column = columns.index("path")
    label_column = columns.index("label") if "label" in columns else None
    images: list[Path] = []
    labels: list[str] = []
    for where, row in rows:
        if len(row) > len(columns):
            raise SotglpError(
                f"{path} has more fields in {where} than the {len(columns)} columns; put quotes around a comma"
            )
        if not (file := _cell(row, path_column)):
            raise SotglpError(f"{path} has no path in {where}; fill it in or remove the row")
        image = path.parent / file
        if not os.path.isfile(image):
            raise SotglpError(
                f"{path} lists {file} in {where}, but {image} does not exist; correct the path or remove the row"
            )
        images.append(image)
        if label_column is not None:
            if not (label := _cell(row, label_column)):
                raise SotglpError(f"{path} has no label for {file} in {where}; fill it in or remove the row")
            labels.append(label)
    if not images:
        raise SotglpError(f"{path} lists no images; add a row for each image")
    return tuple(images), None if label_column is None else tuple(labels)


def _cell(row: list[Any], column: int) -> str:
    value = row[column] if column < len(row) else None
    return "" if value is None else str(value).strip()


def _csv_rows(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield the header, then every row that isn't blank, each with its position for messages."""
    try:
        content = read_regular(path)
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SotglpError(f"{path} isn't UTF-8 text in line {line}; save it as CSV in UTF-8") from error
    # Strict, because an unclosed quote would make one field of the rest of the file.
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
                f"{path} isn't valid CSV in the row that starts at line {line} ({error}); check its quotes"
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
            f'reading {path} requires pyarrow; install it with pip install "sotglp[parquet]", or give a CSV file'
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
        raise SotglpError(f"{path} is not a complete Parquet file; write it again or give a CSV file") from error
    yield "the header", columns if "path" not in columns else wanted
    for name, column in zip(wanted, table.columns, strict=True):
        kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_integer(kind)):
            raise SotglpError(f"{path} has a column {name} of type {column.type}; write it as text")
    try:
        cells = [column.to_pylist() for column in table.columns]
    except UnicodeDecodeError as error:
        raise SotglpError(f"{path} has text that isn't UTF-8; write it again in UTF-8") from error
    except pyarrow.ArrowException as error:  # such as an index beyond a column's dictionary
        raise SotglpError(f"{path} is not a complete Parquet file; write it again or give a CSV file") from error
    for n_rows, values in enumerate(zip(*cells, strict=True), start=1):
        yield f"row {n_rows}", list(values)


def _unopened(path: Path, error: OSError | ValueError) -> SotglpError:
    reason = getattr(error, "strerror", None) or error
    return SotglpError(f"{path} can't be opened ({reason}); check the path")
