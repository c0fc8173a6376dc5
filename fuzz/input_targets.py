"""Fuzz targets: what people feed the library: tables, labels, and images by content."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

Reader = Callable[[bytes], bool]
"""Reads an input; returns False if it refuses the input without an error."""

MANIFEST_IMAGES = ("a.png", "b.png")
ENDINGS = ("", ".jpg", ".png", ".tif", ".jpg_large", ".heic", ".mp4", ".pdf", ".dcm", ".bak", ".PNG", ".gz", ".\ud800")


class Frame:
    """The part of a data frame that is used, of columns with any cells."""

    dtypes = None

    def __init__(self, header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> None:
        self.columns = [str(name) for name in header]
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, name: str) -> list[Any]:
        place = self.columns.index(name)
        return [row[place] if place < len(row) else None for row in self._rows]


def tables(folder: Path) -> tuple[list[bytes], Reader]:
    """Tables by value, as a CSV file and as a data frame: header, rows and the choice of columns are damaged."""
    from sotglp.errors import SotglpError
    from sotglp.images.columns import Columns
    from sotglp.images.manifest import read_frame, read_manifest

    for name in MANIFEST_IMAGES:
        (folder / name).touch()
    names = [str(folder / name) for name in MANIFEST_IMAGES]
    seeds: list[dict[str, Any]] = [
        {"header": ["path", "label"], "rows": [[names[0], "cat"], [names[1], "dog"]]},
        {"header": ["x", "file_name", "class"], "rows": [[1, names[0], 1.0], [2, names[1], 0.0]], "delimiter": ";"},
        {"header": ["path", "split"], "rows": [[names[0], "train"], [names[1], "test"]], "columns": ["test"]},
        {"header": ["Bild", "Art"], "rows": [[names[0], "cat"]], "columns": [None, "Bild", "Art"], "delimiter": "\t"},
        {"header": ["image", "is_valid", "label"], "rows": [[names[0], True, "\u00fc"]], "columns": ["all"]},
    ]

    def run(content: bytes) -> bool:
        table = _parsed(content)
        if table is None:
            return False
        header, rows, chosen = table.get("header"), table.get("rows"), table.get("columns") or []
        delimiter = table.get("delimiter", ",")
        if not (isinstance(header, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows)):
            return False
        if not (isinstance(chosen, list) and all(isinstance(name, str | None) for name in chosen)):
            return False
        columns = Columns(*chosen[:3])
        text = io.StringIO()
        if delimiter in (",", ";", "\t", "|"):
            try:
                csv.writer(text, delimiter=delimiter).writerows([header, *rows])
            except csv.Error:
                return False
        path = folder / "list.csv"
        path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
        n_accepted = 0
        for read in (lambda: read_manifest(path, columns), lambda: read_frame(Frame(header, rows), columns)):
            try:
                images, labels = read()
            except SotglpError:
                continue
            assert images, "an empty table is read"
            assert all(isinstance(image, Path) and image.is_file() for image in images)
            if labels is not None:
                check_labels(labels, len(images))
            n_accepted += 1
        return n_accepted > 0

    return [json.dumps(seed).encode() for seed in seeds], _quietly(run)


def labels(folder: Path) -> tuple[list[bytes], Reader]:
    """Labels in lists and arrays of several types."""
    from sotglp.errors import SotglpError
    from sotglp.images.labels import class_names, distinct_names, label_array, warn_of_missing, warn_of_names

    kinds: dict[str, Callable[[list[Any]], Any]] = {
        "list": list,
        "array": np.array,
        "object": _objects,
        "bytes": lambda values: [str(value).encode("utf-16-le", "surrogatepass") for value in values],
        "S": lambda values: np.array([str(value).encode("utf-8", "surrogatepass") for value in values]),
        "float16": lambda values: np.array(values, dtype=np.float16),
        "column": lambda values: np.array(values).reshape(-1, 1),
        "dates": lambda values: np.array(values, dtype="datetime64[D]"),
        "generator": iter,
    }
    values = [["cat", "dog", "cat"], ["caf\u00e9", "cafe\u0301"], [0, 1, 1], [0.0, 1.0], [True, False], ["x", 3, "3"]]
    seeds = [{"kind": kind, "labels": one} for kind, one in itertools.product(("list", "object"), values)]
    seeds[-1] = {"kind": "list", "labels": ["nan", "'cat'", "unknown"]}
    seeds += [{"kind": "array", "labels": values[0]}, {"kind": "float16", "labels": [1, 2]}]

    def run(content: bytes) -> bool:
        given = _parsed(content)
        if given is None or not isinstance(given.get("labels"), list):
            return False
        kind = kinds.get(given.get("kind")) if isinstance(given.get("kind"), str) else None
        try:
            made = (kind or kinds["list"])(given["labels"])
            again = (kind or kinds["list"])(given["labels"])
        except (ValueError, TypeError, OverflowError):  # of NumPy, before the library sees them
            return False
        names = class_names(made)
        check_labels(names, len(given["labels"]))
        assert len(label_array(again)) == len(names)
        warn_of_missing(names, "y")
        warn_of_names(names)
        with suppress(SotglpError):
            distinct_names(list(given["labels"]))
        return True

    return [json.dumps(seed).encode() for seed in seeds], _quietly(run)


def formats(folder: Path) -> tuple[list[bytes], Reader]:
    """Files whose ending says nothing or something else about their content; the first byte chooses the ending."""
    from targets import image_files

    from sotglp.errors import SotglpError
    from sotglp.images.decode import count_pixels, open_image, read_losses
    from sotglp.images.folders import read_flat_folder
    from sotglp.images.formats import is_image_file
    from sotglp.images.image_set import ImageSet
    from sotglp.images.survey import with_own_ranges

    contents = list(image_files())
    seeds = [bytes([index % len(ENDINGS)]) + content for index, content in enumerate(contents)]

    def run(content: bytes) -> bool:
        if not content:
            return False
        inner = folder / "images"
        inner.mkdir(exist_ok=True)
        for old in inner.iterdir():
            old.unlink()
        path = inner / f"x{ENDINGS[content[0] % len(ENDINGS)].encode('utf-8', 'replace').decode()}"
        path.write_bytes(content[1:])
        is_image = is_image_file(path)
        found: tuple[Path, ...] = ()
        with suppress(SotglpError):
            found = read_flat_folder(inner)
        assert found == ((path,) if is_image else ())
        images = with_own_ranges(ImageSet.from_items([path]))
        n_pixels = count_pixels(content[1:])
        try:
            image = open_image(path, images.ranges)
        except SotglpError:
            return False
        assert image.mode == "RGB"
        assert image.width * image.height == n_pixels
        read_losses(path)
        return True

    return seeds, _quietly(run)


def check_labels(names: Sequence[Any], count: int) -> None:
    """Check what is promised of class names."""
    assert len(names) == count
    for name in names:
        assert type(name) is str
        assert name.strip()
        name.encode()


def _objects(values: list[Any]) -> Any:
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = np.float32(value) if isinstance(value, float) and not math.isnan(value) else value
    return array


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _quietly(run: Reader) -> Reader:
    """Ignore warnings, which are what is asked for."""

    def read(content: bytes) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run(content)

    return read
