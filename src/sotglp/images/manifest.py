"""Manifests: tables of images, with the columns path and label, in CSV or Parquet files or data frames."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sotglp.errors import SotglpError, SotglpWarning, short_repr
from sotglp.images.columns import Columns
from sotglp.images.labels import is_quoted, label_text, warn_of_missing
from sotglp.images.paths import find_file, is_remote, why_missing
from sotglp.images.table import csv_rows, parquet_rows

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
"""Suffixes of manifests, in lower case."""

ANY_COLUMNS = Columns()
"""Columns of the usual names, and all rows."""

_FRAME = "the data frame"

Row = tuple[str, Sequence[Any]]
"""A row's position for messages, and its cells."""


def read_manifest(
    path: Path, columns: Columns = ANY_COLUMNS, *, with_labels: bool = True
) -> tuple[tuple[Path, ...], tuple[str, ...] | None]:
    """Read the image files, all of which exist, and labels that a manifest lists; None without a column of labels.

    A manifest is a .csv or .tsv file (UTF-8, with a header; separated by commas, semicolons, tabs or bars) or a
    .parquet file. The column `path`, or another usual name such as `file_name`, is required; relative paths start at
    the manifest's folder. Raise a SotglpError that names the row or the column that can't be used, such as a file that
    is listed with two labels.
    """
    suffix = path.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise SotglpError(f"{path} isn't a manifest; give a .csv or a .parquet file")
    rows = parquet_rows(path, columns.wanted) if suffix == ".parquet" else csv_rows(path, columns.wanted)
    header = [str(name) for name in next(rows)[1]]
    images, labels = read_rows(str(path), path.parent, header, rows, columns, with_labels=with_labels)
    return tuple(images), labels


def read_frame(
    frame: Any, columns: Columns = ANY_COLUMNS, *, with_labels: bool = True
) -> tuple[list[Any], tuple[str, ...] | None]:
    """Read the images and labels of a data frame of pandas or Polars; see :func:`read_manifest`.

    Images are paths, relative to the current folder, or PIL images. A single column needs no usual name.
    """
    header = [str(name) for name in frame.columns]
    if len(header) == 1:
        columns = Columns(columns.split, header[0])
    names = columns.wanted(header)
    if twice := [name for name in names if header.count(name) > 1]:
        raise SotglpError(f"{_FRAME} has the column {twice[0]} twice; rename or remove one")
    # Columns, since a row of pandas has one type for all of them; tolist also converts numbers of NumPy.
    cells = zip(*(_column(frame, header.index(name)) for name in names), strict=True)
    index = frame.index if hasattr(frame, "index") else range(len(frame))
    rows = [(f"the row {label!r}", row) for label, row in zip(index, cells, strict=bool(names))]
    return read_rows(_FRAME, Path(), names or header, rows, columns, with_labels=with_labels)


def read_rows(
    subject: str,
    folder: Path,
    header: Sequence[str],
    rows: Iterable[Row],
    columns: Columns,
    *,
    with_labels: bool,
    address_of: Callable[[str], str | None] | None = None,
) -> tuple[list[Any], tuple[str, ...] | None]:
    """Return the images and labels of a table, which is called ``subject`` in messages.

    ``address_of`` returns the address that a cell means, which is kept as it is, or None for a path; without it,
    addresses are refused.
    """
    path_column, label_column, split_column = columns.positions(header, subject, with_labels=with_labels)
    kept, others = _rows_of_split(subject, header, rows, split_column, columns)
    if not kept:
        raise SotglpError(f"{subject} lists no images; add a row for each image")
    images = []
    for where, row in kept:
        cell = _cell(row, path_column)
        address = address_of(_text(cell)) if address_of is not None and _text(cell) else None
        images.append(_image(subject, folder, cell, where) if address is None else address)
    labels = None
    if label_column is not None:
        given = [
            _label(subject, _cell(row, label_column), _name(image), where)
            for (where, row), image in zip(kept, images, strict=True)
        ]
        labels = _without_fractions(given)
    _check_repeats(subject, images, labels, [where for where, _ in kept])
    if labels is not None:
        _warn_of_shared(subject, path_column, kept, others)
        warn_of_missing(labels, subject, [where for where, _ in kept])
    return images, labels


def _rows_of_split(
    subject: str, header: Sequence[str], rows: Iterable[Row], split_column: int | None, columns: Columns
) -> tuple[list[Row], list[Row]]:
    """Return the rows of the chosen split, and the others, without blank ones."""
    kept = []
    for where, row in rows:
        if len(row) > len(header):
            raise SotglpError(
                f"{subject} has more fields in {where} than the {len(header)} columns; put quotes around a comma"
            )
        if any(_text(cell) for cell in row):
            kept.append((where, row))
    if split_column is None:
        columns.check_no_splits(subject)
        return kept, []
    values = [_text(_cell(row, split_column)) for _, row in kept]
    used = columns.rows_of_split(header[split_column], values, subject) if kept else []
    parts: dict[bool, list[Row]] = {True: [], False: []}
    for row, is_used in zip(kept, used, strict=True):
        parts[is_used].append(row)
    return parts[True], parts[False]


def _image(subject: str, folder: Path, cell: Any, where: str) -> Any:
    if isinstance(cell, Image.Image):
        return cell
    file = _text(cell)
    if not file:
        raise SotglpError(f"{subject} has no path in {where}; fill it in or remove the row")
    if is_remote(file):
        raise SotglpError(f"{subject} has the address {_short(file)} in {where}; download the image and give its path")
    found = find_file(folder, file)
    if found is None:
        quoted = ", in quotes that are part of the path" if is_quoted(file) else ""
        raise SotglpError(
            f"{subject} lists {_short(file)} in {where}{quoted}, but {_short(str(folder / file))} does not exist"
            f"{why_missing(folder, file)}; correct the path or remove the row"
        )
    return found


def _label(subject: str, cell: Any, name: str, where: str) -> str:
    text = _text(cell)
    if not text:
        raise SotglpError(f"{subject} has no label for {name} in {where}; fill it in or remove the row")
    if is_quoted(text) and isinstance(cell, str):
        raise SotglpError(
            f"{subject} has the label {_short(text)} in {where}, in quotes that are part of it; remove them"
        )
    return label_text(text if isinstance(cell, str) else cell, f"{subject} can't be used: the label in {where}")


def _without_fractions(labels: Sequence[str]) -> tuple[str, ...]:
    """Return whole numbers that a program wrote as floats, such as 1.0, as numbers."""
    if all(re.fullmatch(r"[-+]?\d+(\.0*)?", label) for label in labels):
        return tuple(label.partition(".")[0] for label in labels)
    return tuple(labels)


def _check_repeats(subject: str, images: Sequence[Any], labels: Sequence[str] | None, positions: Sequence[str]) -> None:
    """Raise a SotglpError about a file with two labels, and warn of files that are listed twice."""
    first: dict[str, int] = {}
    repeated = []
    for i, image in enumerate(images):
        if not isinstance(image, str | Path):
            continue
        earlier = first.setdefault(os.path.normpath(image), i)
        if earlier == i:
            continue
        repeated.append(i)
        if labels is not None and labels[i] != labels[earlier]:
            first_label, second_label = short_repr(labels[earlier]), short_repr(labels[i])
            raise SotglpError(
                f"{subject} has the labels {first_label} in {positions[earlier]} and {second_label} in {positions[i]} "
                f"for {_name(image)}; correct one or remove both rows"
            )
    if repeated and labels is not None:
        count = "1 row that repeats" if len(repeated) == 1 else f"{len(repeated)} rows that repeat"
        warnings.warn(
            f"{subject} has {count} an image of another row, such as {positions[repeated[0]]}, and uses it as often; "
            "remove them unless that is intended",
            SotglpWarning,
            stacklevel=4,
        )


def _warn_of_shared(subject: str, path_column: int, used: Sequence[Row], others: Sequence[Row]) -> None:
    """Warn of images that are in the chosen split and in another one."""
    elsewhere = {os.path.normpath(_text(_cell(row, path_column))): where for where, row in others}
    names = [os.path.normpath(_text(_cell(row, path_column))) for _, row in used]
    shared = [(where, elsewhere[name]) for (where, _), name in zip(used, names, strict=True) if name in elsewhere]
    if shared:
        warnings.warn(
            f"{subject} has {len(shared)} images of the chosen split in another split too, such as those of "
            f"{shared[0][0]} and {shared[0][1]}; remove them from one, since accuracy on training images is too high",
            SotglpWarning,
            stacklevel=4,
        )


def _column(frame: Any, position: int) -> list[Any]:
    # By position in pandas, where two columns may have the same name.
    column = frame.iloc[:, position] if hasattr(frame, "iloc") else frame[frame.columns[position]]
    return list(column.tolist() if hasattr(column, "tolist") else column)


def _name(image: Any) -> str:
    return Path(image).name if isinstance(image, str | Path) else "the image"


def _cell(row: Sequence[Any], column: int) -> Any:
    return row[column] if column < len(row) else None


def _text(value: Any) -> str:
    """Return a cell as text; "" for missing values, which are not equal to themselves in NumPy and pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        return ""
    return str(value).strip()


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."
